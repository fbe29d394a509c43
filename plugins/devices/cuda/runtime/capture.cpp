#include "plugins/devices/cuda/runtime/capture.h"

#include <memory>

#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {

Recording::~Recording() {
  if (exec_ != nullptr) cudaGraphExecDestroy(exec_);
}

void Recording::launch(cudaStream_t stream) const {
  check(cudaGraphLaunch(exec_, stream), "replaying the step");
}

Capture::Capture(cudaStream_t stream) : stream_(stream) {
  // Threads of other ranks go on doing what cannot be recorded.
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
        "beginning to record the step");
}

Capture::~Capture() {
  if (!open_) return;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream_, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
}

bool Capture::intact() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream_, &status), "recording the step");
  return status == cudaStreamCaptureStatusActive;
}

Recording Capture::finish() {
  open_ = false;
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &graph);
  const auto destroy = [](cudaGraph_t recorded) { cudaGraphDestroy(recorded); };
  const std::unique_ptr<CUgraph_st, decltype(destroy)> owner(graph, destroy);
  check(ended, "recording the step");
  Recording recording;
  check(cudaGraphInstantiate(&recording.exec_, graph, 0), "making the recorded step ready");
  return recording;
}

}  // namespace ftrain::cuda
