#include "plugins/devices/cuda/runtime/host_work.h"

#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {

char* HostLane::buffer() {
  if (buffer_.data() == nullptr) {
    buffer_ = PinnedMemory(buffer_bytes, "collectives through the host's memory");
  }
  return buffer_.data();
}

void HostLane::raise() {
  if (!failed_) return;
  const std::lock_guard lock(mutex_);
  std::rethrow_exception(error_);
}

void HostLane::keep(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  if (error_) return;
  error_ = std::move(error);
  failed_ = true;
}

void HostCall::enqueue(cudaStream_t stream) {
  check(cudaLaunchHostFunc(stream, run, this), "enqueueing a call of the host");
}

void HostCall::run(void* call) {
  HostCall& self = *static_cast<HostCall*>(call);
  if (self.lane_.failed()) return;
  try {
    self.work_();
  } catch (...) {
    self.lane_.keep(std::current_exception());
  }
}

}  // namespace ftrain::cuda
