#include "plugins/devices/cuda/runtime/stream.h"

#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {

Event::Event(Kind kind) {
  check(cudaEventCreateWithFlags(&event_,
                                 kind == Kind::timed ? cudaEventDefault : cudaEventDisableTiming),
        "making an event");
}

Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

void Event::record(cudaStream_t stream) {
  check(cudaEventRecord(event_, stream), "recording an event");
}

void Event::wait(std::string_view doing) const {
  check(cudaEventSynchronize(event_), doing);
}

double Event::seconds_since(const Event& begin) const {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "reading times");
  return static_cast<double>(milliseconds) * 1e-3;
}

Stream::Stream() {
  // Nothing of ours waits for the default stream, nor it for ours.
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}

Stream::~Stream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void wait_for(cudaStream_t stream, const Event& event) {
  check(cudaStreamWaitEvent(stream, event, 0), "ordering streams");
}

void finish(cudaStream_t stream, std::string_view doing) {
  check(cudaStreamSynchronize(stream), doing);
}

}  // namespace ftrain::cuda
