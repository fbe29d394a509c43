// A program at fixed addresses: a row of kernels that run() enqueues and does not wait for.
//
// Kernels stand on the main stream, collectives beside them on one of their own; which has to wait
// for which is found once, from the memory that both touch. The first runs are enqueued kernel by
// kernel, and so is what is kept while it is not stale; then the step is recorded and replayed by
// one call. Kernels and their order are the same both ways. Fetched values are copied to the host
// behind the step, two runs in turn: those of one are read while the next is under way.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ftrain/device/device.h"
#include "plugins/devices/cuda/device/store.h"
#include "plugins/devices/cuda/device/upload.h"
#include "plugins/devices/cuda/runtime/capture.h"
#include "plugins/devices/cuda/runtime/machine.h"
#include "plugins/devices/cuda/runtime/memory.h"
#include "plugins/devices/cuda/runtime/waiter.h"

namespace ftrain::cuda {

struct RunOptions {
  bool overlap = false;  // collectives run beside the kernels
  bool capture = true;   // the step is recorded and replayed
  bool check = false;    // after each kernel the host waits, so that one that fails is named
};

// The plan's inputs as they lie one behind the other; the bytes of all.
struct InputPlaces {
  std::vector<Uploads::Input> places;  // as graph.inputs()
  std::size_t bytes = 0;
};
InputPlaces place_inputs(const Graph& graph);

class CudaExecutable final : public Executable {
 public:
  // Runs that are enqueued kernel by kernel before one is recorded: in them libraries load code
  // and take what memory they need.
  static constexpr std::size_t plain_runs = 2;

  CudaExecutable(Program program, Store& store, Machine& machine, Communicator* communicator,
                 const RunOptions& options);
  ~CudaExecutable() override;

  const Program& program() const override { return program_; }
  void write(std::string_view input, const void* data) override;
  void run() override;
  std::vector<TimelineEvent> run_with_timeline() override;
  void refresh() override { stale_ = true; }
  void read(std::string_view fetch, void* data) override;
  bool runs_ahead() const override { return !waiter_.through_host(); }
  void read_before(std::string_view fetch, void* data) override;

 private:
  struct Launch {
    Kernel* kernel = nullptr;  // the program's
    std::int32_t node = 0;
    std::size_t waits = 0;   // for that many of the collectives beside
    std::size_t beside = 0;  // one of those: its number, from 1
  };
  struct Beside {
    std::int32_t node = 0;
    Event ready, done;  // what it needs is there; what it makes is
  };
  struct Fetch {
    const char* address = nullptr;
    // That every run makes in the host's memory, two runs in turn; null: none, it is large.
    char* copies[2] = {nullptr, nullptr};
  };

  void make_launches(bool overlap);
  void find_waits();
  void place_fetches();
  void copy_fetches();
  char* address(Value value) const;
  std::string title(const Launch& launch) const;
  void begin();
  void end();
  void perform(const Launch& launch) const;
  void perform_and_wait(const Launch& launch, cudaStream_t stream) const;
  // perform(launch, stream) for each, wait(collective) where the main stream has to.
  template <class Perform, class Wait>
  void enqueue(const Perform& perform, const Wait& wait);
  void enqueue_plain();
  void record();

  Program program_;
  Store& store_;
  Machine& machine_;
  const RunOptions options_;
  Waiter waiter_;
  InputPlaces places_;
  char *inputs_ = nullptr, *arena_ = nullptr;  // in the store
  std::unique_ptr<Uploads> uploads_;
  std::vector<Launch> kept_;      // in order: done when stale, before the others
  std::vector<Launch> launches_;  // in order
  std::vector<Beside> beside_;    // the collectives beside, in order
  std::vector<Fetch> fetches_;    // as the graph's
  PinnedMemory fetched_;
  Event done_[2];  // of the last two runs, in turn
  Recording recording_;
  std::size_t runs_ = 0;
  bool stale_ = true;
  std::uint64_t seen_writes_ = 0;
};

}  // namespace ftrain::cuda
