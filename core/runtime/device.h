// Hardware that compiles a graph and runs it.
//
// A Device rewrites a graph for itself (layouts, fusions), chooses kernels, and compiles programs
// against a StateStore: the resident tensors of one rank, shared by the training and the evaluation
// program. Ownership: programs, executables and stores must not outlive their device. Threads: one
// rank, one thread. Failure: DeviceError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/config/keys.h"
#include "core/graph/graph.h"
#include "core/graph/plan.h"
#include "core/runtime/communicator.h"
#include "core/runtime/kernel.h"

namespace ftrain {

// A graph as a device will run it: rewritten, planned, its kernels chosen. Prints itself.
struct FTRAIN_API Program {
  std::unique_ptr<Graph> graph;
  Plan plan;
  std::vector<KernelChoice> kernels;  // by node; leaves and views have none
  // By node: depends on states alone and is done once until Executable::refresh(), its outputs
  // kept. Empty: none.
  std::vector<bool> kept;
  // One line a node: outputs, op, kernel, shapes, arena offsets.
  std::string text() const;
  // One line a kernel choice: node, op, chosen kernel, refused ones with reasons.
  std::string kernels_text() const;
};

// The tensors that outlive a step. Reads and writes are row-major whatever the physical layout.
class FTRAIN_API StateStore {
 public:
  virtual ~StateStore();
  struct Entry {
    StateSpec spec;  // with the physical layout in spec.type.layout
    std::size_t bytes = 0;
  };
  virtual const std::vector<Entry>& entries() const = 0;
  virtual bool has(std::string_view name) const = 0;
  // The whole tensor of this rank. Waits for steps in flight.
  virtual void read(std::string_view name, void* row_major) const = 0;
  virtual void write(std::string_view name, const void* row_major) = 0;
};

class FTRAIN_API Executable {
 public:
  virtual ~Executable();
  virtual const Program& program() const = 0;
  virtual void write(std::string_view input, const void* data) = 0;
  // Enqueues one step.
  virtual void run() = 0;
  // The states were written since the last run: the next one does anew what it keeps of them.
  virtual void refresh() {}
  // Waits for that value of the last run.
  virtual void read(std::string_view fetch, void* data) = 0;
};

class FTRAIN_API Device : public Configurable {
 public:
  static constexpr const char* kind = "device";
  ~Device() override;

  // After configure(): finds the hardware, sets threads. DeviceError when the job asks for what it
  // lacks. `local_ranks` ranks share the machine.
  virtual void open(int local_rank, int local_ranks) = 0;
  virtual std::string summary() const = 0;  // "CPU AMD EPYC, 2 threads, avx512, oneDNN 2.6.3"
  virtual const KernelList& kernels() const = 0;

  virtual std::unique_ptr<StateStore> make_store() = 0;
  // Rewrites, chooses kernels and plans, without allocating tensors. States that `store` (may be
  // null) already holds keep their layout.
  virtual Program prepare(const Graph& graph, const StateStore* store,
                          Communicator* communicator) = 0;
  // Allocates, adds missing states to the store (zeroed: the caller initialises them) and binds.
  virtual std::unique_ptr<Executable> compile(Program program, StateStore& store,
                                              Communicator* communicator) = 0;
};

}  // namespace ftrain
