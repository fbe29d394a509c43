// Hardware that compiles a graph and runs it.
//
// A Device offers kernels and tells core's compiler what is particular to it (target.h), and binds
// compiled programs to a StateStore: the resident tensors of one rank, shared by the training and
// the evaluation program. Ownership: programs, executables and stores must not outlive their
// device. Threads: one rank, one thread. Failure: DeviceError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ftrain/config/keys.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/kernel.h"
#include "ftrain/device/plan.h"
#include "ftrain/device/target.h"
#include "ftrain/graph/graph.h"

namespace ftrain {

// A node in whose place the ops that it is made of stand, because no kernel does it.
struct Decomposed {
  std::string op, name;
  std::vector<std::pair<std::string, std::string>> refused;  // kernel name, reason
};

// A graph as a device will run it: rewritten, planned, its kernels chosen and made. Prints itself.
struct FTRAIN_API Program {
  std::unique_ptr<Graph> graph;
  Plan plan;
  std::vector<KernelChoice> kernels;  // by node; leaves and views have none
  // The chosen kernels themselves, made once: an executable binds them.
  std::vector<std::unique_ptr<Kernel>> instances;
  std::vector<Decomposed> decomposed;
  // By node: depends on states alone and is done once until Executable::refresh(), its outputs
  // kept. Empty: none.
  std::vector<bool> kept;
  // One line a node: outputs, op, kernel, shapes, arena offsets.
  std::string text() const;
  // One line a kernel choice: node, op, chosen kernel, its time and the losers' where that was
  // measured, refused ones with reasons. Before them the nodes that are done by their
  // decompositions.
  std::string kernels_text() const;
};

// The tensors that outlive a step. Reads and writes are row-major whatever the physical layout.
//
// Programs compiled against one store may share their working memory: read what one fetched before
// another runs, and refresh() one that keeps values when another ran since.
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
  // The same for the elements [first, first + count) of the row-major tensor. Where the state lies
  // in another order than row-major the whole of it is copied for each part.
  virtual void read_part(std::string_view name, std::size_t first, std::size_t count,
                         void* row_major) const;
  virtual void write_part(std::string_view name, std::size_t first, std::size_t count,
                          const void* row_major);

 protected:
  // DeviceError with near names when there is no such state.
  const Entry& entry(std::string_view name) const;
};

// What a program did in one run, for people: kernels in lane 0, collectives in lane 1.
struct TimelineEvent {
  std::string name, op;
  int lane = 0;
  double begin = 0, end = 0;  // seconds since the run began
};

class FTRAIN_API Executable {
 public:
  virtual ~Executable();
  virtual const Program& program() const = 0;
  virtual void write(std::string_view input, const void* data) = 0;
  // Enqueues one step.
  virtual void run() = 0;
  // run() with times of everything in it; returns when all is done.
  virtual std::vector<TimelineEvent> run_with_timeline();
  // The states were written since the last run: the next one does anew what it keeps of them.
  virtual void refresh() {}
  // Waits for that value of the last run.
  virtual void read(std::string_view fetch, void* data) = 0;
  // Whether run() may return before its step is done, the same on every rank. Whoever reads the
  // scalars of the run before the last then lets the last one go on meanwhile.
  virtual bool runs_ahead() const { return false; }
  // Of an executable that runs ahead: waits for that scalar of the run before the last. DeviceError
  // when there was none, or when it does not run ahead.
  virtual void read_before(std::string_view fetch, void* data);
};

// The first scale, and after how many good steps in a row it doubles; a bad one halves it.
struct LossScaling {
  double initial = 65536;
  std::int64_t interval = 2000;
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
  // One more kernel, of a plugin: after open() and before anything is prepared. It competes with
  // the device's own by its priority.
  virtual void add_kernel(const KernelDef& def) = 0;

  // Whether gradients of the backbone are to be made of a loss that is scaled up, because what they
  // lie in has too few exponents for them (fp16), and how. Known after configure().
  virtual std::optional<LossScaling> loss_scaling() const { return {}; }

  // The kernels that measuring chose in prepare(), as text for a file: empty where none were. A run
  // keeps it, and gives it to repeat() between open() and prepare() when it is continued, so that
  // it goes on with the same kernels and hence to the same bits. What does not suit this machine or
  // job is passed over.
  virtual std::string choices() const { return {}; }
  virtual void repeat(std::string_view choices) { static_cast<void>(choices); }

  virtual std::unique_ptr<StateStore> make_store() = 0;
  // What the compiler is told for that program, as core wrote it.
  virtual std::unique_ptr<CompileTarget> target(const Graph& program,
                                                Communicator* communicator) = 0;
  // Rewrites, makes kernels and plans, without allocating tensors: core/compile/compiler.h. States
  // that `store` (may be null) already holds keep their layout. `communicator` must outlive the
  // program.
  Program prepare(const Graph& graph, const StateStore* store, Communicator* communicator);
  // Resident memory of this process that a program which was prepared takes in addition once it is
  // compiled, beside its plan: kernels' tables, threads. Measured by binding its kernels to no
  // memory, so such a program is not to be compiled any more; nothing is run.
  virtual std::size_t overhead_bytes(const Program& program);
  // Allocates, adds missing states to the store (zeroed: the caller initialises them) and binds.
  virtual std::unique_ptr<Executable> compile(Program program, StateStore& store,
                                              Communicator* communicator) = 0;
};

}  // namespace ftrain
