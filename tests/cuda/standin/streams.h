// Streams, events and captures.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <vector>

#include "tests/cuda/standin/queue.h"

namespace standin {

// What is recorded instead of queued.
struct Node {
  std::shared_ptr<const Work> work;
  int lane = 0;
  std::vector<std::size_t> after;
};
struct Capture {
  std::vector<Node> nodes;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  std::unordered_set<CUstream_st*> streams;  // the first, and those that joined
  bool spoiled = false, ended = false;
};

}  // namespace standin

struct CUstream_st {
  std::shared_ptr<standin::Engine> engine;
  int lane = 0;
  unsigned flags = 0;
  standin::OperationPtr tail;
  // While capturing: what the next node comes after.
  std::shared_ptr<standin::Capture> capture;
  std::vector<std::size_t> frontier;
  bool is_origin = false;
};
struct CUevent_st {
  unsigned flags = 0;
  standin::OperationPtr recorded;
  std::shared_ptr<standin::Capture> capture;  // in which it was recorded last
  std::vector<std::size_t> frontier;
};
struct CUgraph_st {
  std::vector<standin::Node> nodes;
};
struct CUgraphExec_st {
  std::vector<standin::Node> nodes;
  standin::OperationPtr last;  // launch of it
};

namespace standin {

// Into the stream's queue or capture; with the null stream, done at once in this thread.
cudaError_t put_into(cudaStream_t stream, Work work);

// What exists. Calls refuse other handles.
struct Handles {
  std::mutex mutex;  // of these and what they point to
  std::unordered_set<cudaStream_t> streams;
  std::unordered_set<cudaEvent_t> events;
  std::unordered_set<cudaGraph_t> graphs;
  std::unordered_set<cudaGraphExec_t> made;
  std::unordered_set<std::shared_ptr<Capture>> captures;  // under way

  static Handles& all();
};
// With the lock held: the capture, and all that is put into it, is lost.
void spoil(Capture& capture);

}  // namespace standin
