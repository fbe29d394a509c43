// Streams and events of the current device, by ownership.
//
// Threads: one at a time. Failure: DeviceError; destructors keep silent, because a GPU that failed
// fails again in them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string_view>
#include <utility>

namespace ftrain::cuda {

class Event {
 public:
  enum class Kind { order, timed };
  explicit Event(Kind kind = Kind::order);
  ~Event();
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }

  // Happens when all that was enqueued before is done.
  void record(cudaStream_t stream);
  // Until it has happened; at once when it was never recorded. `doing`: what is being waited for.
  void wait(std::string_view doing) const;
  // Both timed and past.
  double seconds_since(const Event& begin) const;

  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

class Stream {
 public:
  Stream();
  explicit Stream(std::nullptr_t) {}  // none
  ~Stream();
  Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }

  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// What is enqueued from now on begins after the event.
void wait_for(cudaStream_t stream, const Event& event);
// Until all that was enqueued is done.
void finish(cudaStream_t stream, std::string_view doing);

}  // namespace ftrain::cuda
