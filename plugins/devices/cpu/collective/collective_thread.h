// A thread on which a program's collectives run beside its kernels, one after another.
//
// Ownership: the kernels are the executable's and outlive it. Threads: one rank's thread calls it.
// Failure: what a collective throws is thrown again by the call that waits; those behind it are
// dropped. The destructor waits for the collective at work, which another rank may have to end
// (Communicator::abort).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "ftrain/device/kernel.h"

namespace ftrain::cpu {

class CollectiveThread {
 public:
  using Time = std::chrono::steady_clock::time_point;
  struct Span {
    Time begin, end;
  };

  // In the order in which they run.
  explicit CollectiveThread(std::vector<Kernel*> collectives);
  ~CollectiveThread();
  CollectiveThread(const CollectiveThread&) = delete;
  CollectiveThread& operator=(const CollectiveThread&) = delete;

  // A new run begins. Waits for what an interrupted one left at work.
  void start();
  // The first `count` collectives may run.
  void release(std::size_t count);
  // Until the first `count` are done. Returns whether there was something to wait for.
  bool wait(std::size_t count);
  // Drops those that have not begun.
  void drop();

  // When each was at work in this run; of those that are done.
  const std::vector<Span>& spans() const { return spans_; }

 private:
  void work();

  const std::vector<Kernel*> collectives_;
  std::vector<Span> spans_;
  std::mutex mutex_;
  std::condition_variable for_worker_, for_caller_;
  std::size_t released_ = 0, done_ = 0;
  bool working_ = false, stop_ = false;
  std::exception_ptr error_;
  std::thread thread_;  // last: it starts when all else stands
};

}  // namespace ftrain::cpu
