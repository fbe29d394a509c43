// What someone is told whose job does not fit the device's memory, beside the figures.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ftrain/base/error.h"
#include "ftrain/graph/graph.h"

namespace ftrain {

// A program of a job, and what its memory grows with.
struct MemoryGrowth {
  std::string batch_key;  // "[dataset] batch"
  std::int64_t batch = 1;
  std::int64_t classes = 0;       // 0: no class centers are in it
  std::size_t state_bytes = 0;    // that the program adds to the device's memory
  std::size_t centers_bytes = 0;  // of which class centers and their optimizer's slots
};

// `graph` as a device prepared it; its states are counted where `adds_states`.
FTRAIN_API MemoryGrowth growth_of(const Graph& graph, bool adds_states, std::string batch_key,
                                  std::int64_t batch, std::int64_t classes);

// The same error, and behind its message about which batch and how many classes would fit. All but
// the states is taken to grow with the batch.
FTRAIN_API OutOfMemoryError with_advice(const OutOfMemoryError& error, const MemoryGrowth& growth);

// compile(), whose OutOfMemoryError comes out with advice.
template <class Compile>
void with_advice(const MemoryGrowth& growth, const Compile& compile) {
  try {
    compile();
  } catch (const OutOfMemoryError& error) {
    throw with_advice(error, growth);
  }
}

}  // namespace ftrain
