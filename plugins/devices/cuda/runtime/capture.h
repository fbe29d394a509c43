// A row of launches recorded once and replayed by one call.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

namespace ftrain::cuda {

// What was recorded, ready to run; may be replayed many times.
class Recording {
 public:
  Recording() = default;
  ~Recording();
  Recording(Recording&& other) noexcept : exec_(std::exchange(other.exec_, nullptr)) {}
  Recording& operator=(Recording&& other) noexcept {
    std::swap(exec_, other.exec_);
    return *this;
  }

  explicit operator bool() const { return exec_ != nullptr; }
  void launch(cudaStream_t stream) const;

 private:
  friend class Capture;
  cudaGraphExec_t exec_ = nullptr;
};

// While it lives, what is enqueued on the stream is recorded instead of done, as is what is
// enqueued on streams that wait for it. Given up when it goes without finish().
class Capture {
 public:
  explicit Capture(cudaStream_t stream);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // Whether nothing was enqueued that cannot be recorded.
  bool intact() const;
  // Streams that wait for this one have been waited for.
  Recording finish();

 private:
  cudaStream_t stream_;
  bool open_ = true;
};

}  // namespace ftrain::cuda
