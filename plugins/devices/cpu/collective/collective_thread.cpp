#include "plugins/devices/cpu/collective/collective_thread.h"

#include <algorithm>
#include <utility>

namespace ftrain::cpu {

CollectiveThread::CollectiveThread(std::vector<Kernel*> collectives)
    : collectives_(std::move(collectives)),
      spans_(collectives_.size()),
      thread_([this] { work(); }) {}

CollectiveThread::~CollectiveThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    for_worker_.notify_one();
  }
  thread_.join();
}

void CollectiveThread::start() {
  std::unique_lock lock(mutex_);
  for_caller_.wait(lock, [this] { return !working_; });
  released_ = done_ = 0;
  error_ = nullptr;
}

void CollectiveThread::release(std::size_t count) {
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(error_);
  released_ = count;
  for_worker_.notify_one();
}

bool CollectiveThread::wait(std::size_t count) {
  std::unique_lock lock(mutex_);
  const bool early = done_ < count && !error_;
  for_caller_.wait(lock, [&] { return done_ >= count || error_; });
  if (error_) std::rethrow_exception(error_);
  return early;
}

void CollectiveThread::drop() {
  const std::lock_guard lock(mutex_);
  released_ = std::min(released_, done_ + (working_ ? 1 : 0));
}

void CollectiveThread::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    for_worker_.wait(lock, [this] { return stop_ || (done_ < released_ && !error_); });
    if (stop_) return;
    const std::size_t next = done_;
    working_ = true;
    lock.unlock();
    std::exception_ptr error;
    Span span{std::chrono::steady_clock::now(), {}};
    try {
      collectives_[next]->launch();
    } catch (...) {
      error = std::current_exception();
    }
    span.end = std::chrono::steady_clock::now();
    lock.lock();
    working_ = false;
    spans_[next] = span;
    if (error)
      error_ = error;
    else
      ++done_;
    for_caller_.notify_one();
  }
}

}  // namespace ftrain::cpu
