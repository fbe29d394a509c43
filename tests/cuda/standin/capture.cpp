// Captures: what streams are given is recorded, and repeated by graphs.
#include <mutex>
#include <utility>

#include "tests/cuda/standin/calls.h"
#include "tests/cuda/standin/streams.h"

namespace standin {

void spoil(Capture& capture) {
  capture.spoiled = true;
  capture.nodes.clear();
}

cudaError_t refuse_while_capturing() {
  Handles& handles = Handles::all();
  const std::scoped_lock lock(handles.mutex);
  bool refused = false;
  for (const auto& capture : handles.captures) {
    const bool own = capture->thread == std::this_thread::get_id();
    const bool concerned = capture->mode == cudaStreamCaptureModeGlobal ||
                           (own && capture->mode == cudaStreamCaptureModeThreadLocal);
    if (!concerned) continue;
    spoil(*capture);
    refused = true;
  }
  return refused ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

namespace {

// Whether all nodes come before one of the last ones.
bool are_joined(const std::vector<Node>& nodes, std::vector<std::size_t> last) {
  std::vector<bool> reached(nodes.size());
  std::size_t count = 0;
  while (!last.empty()) {
    const std::size_t node = last.back();
    last.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    ++count;
    last.insert(last.end(), nodes[node].after.begin(), nodes[node].after.end());
  }
  return count == nodes.size();
}

cudaError_t begin(cudaStream_t stream, cudaStreamCaptureMode mode) {
  Handles& handles = Handles::all();
  const std::scoped_lock lock(handles.mutex);
  if (stream == nullptr) return cudaErrorStreamCaptureUnsupported;
  if (!handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capture) return cudaErrorIllegalState;
  auto capture = std::make_shared<Capture>();
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->streams = {stream};
  stream->frontier.clear();
  stream->is_origin = true;
  handles.captures.insert(capture);
  stream->capture = std::move(capture);
  return cudaSuccess;
}

cudaError_t end(cudaStream_t stream, cudaGraph_t* graph) {
  Handles& handles = Handles::all();
  const std::scoped_lock lock(handles.mutex);
  *graph = nullptr;
  if (stream == nullptr || !handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return cudaErrorIllegalState;
  if (!stream->is_origin) {
    spoil(*capture);
    return cudaErrorStreamCaptureUnmatched;
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed &&
      capture->thread != std::this_thread::get_id()) {
    return cudaErrorStreamCaptureWrongThread;
  }
  const std::vector<std::size_t> last = std::exchange(stream->frontier, {});
  stream->is_origin = false;
  for (CUstream_st* const each : capture->streams) {
    each->capture = nullptr;
    each->frontier.clear();
  }
  capture->ended = true;
  handles.captures.erase(capture);
  if (capture->spoiled) return cudaErrorStreamCaptureInvalidated;
  if (!are_joined(capture->nodes, last)) return cudaErrorStreamCaptureUnjoined;
  auto made = std::make_unique<CUgraph_st>();
  made->nodes = std::move(capture->nodes);
  handles.graphs.insert(made.get());
  *graph = made.release();
  return cudaSuccess;
}

cudaError_t instantiate(cudaGraphExec_t* made, cudaGraph_t graph) {
  Handles& handles = Handles::all();
  const std::scoped_lock lock(handles.mutex);
  if (!handles.graphs.contains(graph)) return cudaErrorInvalidValue;
  auto copy = std::make_unique<CUgraphExec_st>();
  copy->nodes = graph->nodes;
  handles.made.insert(copy.get());
  *made = copy.release();
  return cudaSuccess;
}

// Each node is an operation of its own, so that other streams' work goes between.
cudaError_t launch(cudaGraphExec_t graph, cudaStream_t stream) {
  Handles& handles = Handles::all();
  const std::scoped_lock lock(handles.mutex);
  if (!handles.made.contains(graph)) return cudaErrorInvalidValue;
  if (stream == nullptr || !handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capture) {  // CUDA would make it part of the graph; nobody here asks for that
    spoil(*stream->capture);
    return cudaErrorStreamCaptureUnsupported;
  }
  std::vector<OperationPtr> all{stream->tail, graph->last};
  std::vector<OperationPtr> made;
  for (const Node& node : graph->nodes) {
    std::vector<OperationPtr> after;
    for (const std::size_t other : node.after) after.push_back(made[other]);
    if (node.after.empty()) after = {stream->tail, graph->last};
    made.push_back(put(stream->engine, node.lane, node.work, after));
    all.push_back(made.back());
  }
  stream->tail = graph->last = put(stream->engine, stream->lane, nullptr, all);
  return cudaSuccess;
}

}  // namespace
}  // namespace standin

using standin::answer;
using standin::Handles;

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return answer("cudaStreamBeginCapture", [&] { return standin::begin(stream, mode); });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return answer("cudaStreamEndCapture", [&] { return standin::end(stream, graph); });
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return answer("cudaStreamIsCapturing", [&] {
    *status = cudaStreamCaptureStatusNone;
    if (stream == nullptr) return cudaSuccess;
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    if (!handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
    if (!stream->capture) return cudaSuccess;
    *status = stream->capture->spoiled ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  return answer("cudaGraphInstantiate", [&] { return standin::instantiate(made, graph); });
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph,
                                          unsigned long long) {
  return answer("cudaGraphInstantiate", [&] { return standin::instantiate(made, graph); });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t graph, cudaStream_t) {
  return answer("cudaGraphUpload", [&] {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    return handles.made.contains(graph) ? cudaSuccess : cudaErrorInvalidValue;
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  return answer("cudaGraphLaunch", [&] { return standin::launch(graph, stream); });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return answer("cudaGraphDestroy", [&] {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    if (handles.graphs.erase(graph) == 0) return cudaErrorInvalidValue;
    delete graph;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  return answer("cudaGraphExecDestroy", [&] {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    if (handles.made.erase(graph) == 0) return cudaErrorInvalidValue;
    delete graph;
    return cudaSuccess;
  });
}
