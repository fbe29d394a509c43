// Device memory, streams and events as tests of the stand-in use them: owned, and every error a
// failure of the test.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace standin {

inline void ok(cudaError_t error, const char* what) {
  EXPECT_EQ(error, cudaSuccess) << what << ": " << cudaGetErrorString(error);
}
#define STANDIN_OK(call) ::standin::ok(call, #call)

class Stream {
 public:
  Stream() { STANDIN_OK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }
  void wait() const { STANDIN_OK(cudaStreamSynchronize(stream_)); }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(unsigned flags = cudaEventDisableTiming) {
    STANDIN_OK(cudaEventCreateWithFlags(&event_, flags));
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// What comes into `to` from now on comes after all that is in `from`.
inline void after(cudaStream_t to, cudaStream_t from) {
  const Event event;
  STANDIN_OK(cudaEventRecord(event, from));
  STANDIN_OK(cudaStreamWaitEvent(to, event, 0));
}

template <class T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(std::size_t count) : count_(count) {
    STANDIN_OK(cudaMalloc(&data_, count * sizeof(T)));
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { cudaFree(data_); }
  T* data() const { return data_; }
  std::size_t bytes() const { return count_ * sizeof(T); }
  // Waits for the stream.
  std::vector<T> read(cudaStream_t stream) const {
    std::vector<T> values(count_);
    STANDIN_OK(cudaMemcpyAsync(values.data(), data_, bytes(), cudaMemcpyDeviceToHost, stream));
    return values;
  }
  void write(const std::vector<T>& values, cudaStream_t stream) {
    STANDIN_OK(cudaMemcpyAsync(data_, values.data(), bytes(), cudaMemcpyHostToDevice, stream));
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

template <class T>
class PinnedBuffer {
 public:
  explicit PinnedBuffer(std::size_t count) {
    STANDIN_OK(cudaMallocHost(&data_, count * sizeof(T)));
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer() { cudaFreeHost(data_); }
  T* data() const { return data_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
};

}  // namespace standin
