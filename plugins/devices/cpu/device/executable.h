// A program at fixed addresses: a row of kernels, run in order on the caller's thread (each kernel
// is parallel inside). Collectives may run on a thread of their own meanwhile.
//
// Which kernel has to wait for which collective is found once, from the memory that both touch; a
// run decides nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ftrain/device/device.h"
#include "plugins/devices/cpu/collective/collective_thread.h"
#include "plugins/devices/cpu/device/store.h"

namespace ftrain::cpu {

// Binds the program's kernels, but for collectives, to addresses that are not to be used.
void bind_nowhere(const Program& program);

class CpuExecutable final : public Executable {
 public:
  // `overlap`: collectives run beside the kernels.
  CpuExecutable(Program program, Store& store, int threads, bool overlap);

  const Program& program() const override { return program_; }
  void write(std::string_view input, const void* data) override;
  void run() override;
  std::vector<TimelineEvent> run_with_timeline() override;
  void refresh() override { stale_ = true; }
  void read(std::string_view fetch, void* data) override;

 private:
  using Time = CollectiveThread::Time;

  void find_waits();
  char* address(Value value) const;
  template <bool timed>
  void go(std::vector<TimelineEvent>* events);

  Program program_;
  Store& store_;
  int threads_;
  char *inputs_ = nullptr, *arena_ = nullptr;  // in the store
  std::vector<std::size_t> input_offsets_;     // by node; inputs alone
  // In order; `kept`: done only when stale.
  struct Launch {
    Kernel* kernel = nullptr;  // the program's
    std::int32_t node = 0;
    bool kept = false;
    std::size_t waits = 0;    // for that many of the collectives beside
    std::size_t release = 0;  // one of those: its number, from 1
  };
  std::vector<Launch> launches_;
  std::vector<std::int32_t> beside_;  // the nodes of the collectives beside, in order
  bool stale_ = true;
  std::unique_ptr<CollectiveThread> thread_;  // null: none runs beside
};

}  // namespace ftrain::cpu
