// Ranks as threads of the test, joined by the `local` communicator.
#pragma once

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ftrain/config/table.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/device.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {

inline Registry& plugins() {
#ifdef FTRAIN_EXAMPLES
  static Registry registry({FTRAIN_PLUGINS, FTRAIN_EXAMPLES});
#else
  static Registry registry({FTRAIN_PLUGINS});
#endif
  return registry;
}

// A state's values, whatever it is stored in.
inline std::vector<float> read_floats(const StateStore& store, const StateSpec& spec) {
  std::vector<float> values(static_cast<std::size_t>(spec.type.shape.elements()));
  if (spec.type.dtype != DType::bf16) {
    store.read(spec.name, values.data());
    return values;
  }
  std::vector<BF16> stored(values.size());
  store.read(spec.name, stored.data());
  std::transform(stored.begin(), stored.end(), values.begin(), [](BF16 x) { return to_f32(x); });
  return values;
}

// Runs body(rank, communicator) on each rank (null at one rank) and rethrows the first failure. A
// rank that throws stops the others.
inline void on_ranks(int ranks, const std::function<void(int, Communicator*)>& body) {
  if (ranks == 1) return body(0, nullptr);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < ranks; ++rank) {
    communicators.push_back(plugins().create<Communicator>("local", Table::empty("launch")));
  }
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<std::size_t>(rank);
      Communicator& communicator = *communicators[r];
      try {
        communicator.connect(
            {.rank = rank, .size = ranks, .local_rank = rank, .local_size = ranks, .job = "test"});
        body(rank, &communicator);
      } catch (const std::exception& error) {
        failures[r] = std::current_exception();
        communicator.abort(error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace ftrain
