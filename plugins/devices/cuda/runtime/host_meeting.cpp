#include "plugins/devices/cuda/runtime/host_meeting.h"

#include <condition_variable>
#include <mutex>

#include "ftrain/base/error.h"
#include "plugins/devices/cuda/runtime/check.h"
#include "plugins/devices/cuda/runtime/host_work.h"

namespace ftrain::cuda {
namespace {

// Of all ranks of the process; they come in rounds.
class Meeting {
 public:
  bool attend(int ranks, std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    if (++arrived_ == ranks) {
      arrived_ = 0;
      ++round_;
      came_.notify_all();
      return true;
    }
    const bool met = came_.wait_for(lock, limit, [&, round = round_] { return round_ != round; });
    if (!met) --arrived_;
    return met;
  }

 private:
  std::mutex mutex_;
  std::condition_variable came_;
  int arrived_ = 0, round_ = 0;
};

}  // namespace

void check_host_calls_meet(const Machine& machine, Communicator& communicator,
                           std::chrono::milliseconds limit) {
  static Meeting meeting;
  communicator.barrier();  // from here on every rank has its machine
  const int ranks = Machine::in_this_process();
  if (ranks < 2) return;
  HostLane lane;
  bool met = false;
  HostCall call(lane, [&] { met = meeting.attend(ranks, limit); });
  call.enqueue(machine.main);
  finish(machine.main, "trying whether ranks of one process meet");
  if (met) return;
  throw DeviceError(
      "the ranks of this process cannot exchange tensors through the host's memory: CUDA runs "
      "their functions one after another, and they would wait for each other for ever; make the "
      "ranks processes: [launch] communicator = \"auto\", \"mpi\" or \"tcp\"");
}

}  // namespace ftrain::cuda
