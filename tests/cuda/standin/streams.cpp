#include "tests/cuda/standin/streams.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>

#include "tests/cuda/standin/calls.h"
#include "tests/cuda/standin/memory.h"

namespace standin {
namespace {

// While memory is open to this thread.
struct Opened {
  Opened() { open_memory(); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened() { close_memory(); }
};

// A stream of CUDA's own kind waits for the null stream, so a capture in one cannot go on.
cudaError_t run_in_null_stream(const Work& work) {
  {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    for (const auto& capture : handles.captures) {
      const bool blocks = std::any_of(
          capture->streams.begin(), capture->streams.end(),
          [](const CUstream_st* stream) { return (stream->flags & cudaStreamNonBlocking) == 0; });
      if (!blocks) continue;
      spoil(*capture);
      return cudaErrorStreamCaptureImplicit;
    }
  }
  const Opened opened;
  work.run();
  return cudaSuccess;
}

}  // namespace

Handles& Handles::all() {
  static Handles* const handles = new Handles;  // engines outlive main()
  return *handles;
}

cudaError_t put_into(cudaStream_t stream, Work work) {
  if (stream == nullptr) return run_in_null_stream(work);
  Handles& handles = Handles::all();
  const std::scoped_lock lock(handles.mutex);
  if (!handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
  auto shared = std::make_shared<const Work>(std::move(work));
  if (stream->capture) {
    Capture& capture = *stream->capture;
    if (capture.spoiled) return cudaErrorStreamCaptureInvalidated;
    capture.nodes.push_back({std::move(shared), stream->lane, stream->frontier});
    stream->frontier = {capture.nodes.size() - 1};
  } else {
    stream->tail = put(stream->engine, stream->lane, std::move(shared), {stream->tail});
  }
  return cudaSuccess;
}

void enqueue(CUstream_st* stream, std::function<void()> work) {
  const cudaError_t error = put_into(stream, {std::move(work)});
  if (error != cudaSuccess) {
    throw Misuse(std::string("work for a stream: ") + cudaGetErrorString(keep(error)));
  }
}

namespace {

// Copies of host memory that is not pinned: read at once, or written before the call returns.
cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (stream == nullptr) {
    return put_into(stream, {[=] { std::memcpy(to, from, bytes); }});
  }
  const Place target = place_of(to, bytes), source = place_of(from, bytes);
  const bool to_device = target == Place::device, from_device = source == Place::device;
  const bool as_said =
      kind == cudaMemcpyDefault ||
      (to_device == (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) &&
       from_device == (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice));
  if (!as_said || leaves_allocation(to, bytes) || leaves_allocation(from, bytes)) {
    return cudaErrorInvalidValue;
  }
  const bool pageable = target == Place::pageable || source == Place::pageable;
  if (pageable) {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    if (!handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture) {
      spoil(*stream->capture);
      return cudaErrorStreamCaptureUnsupported;
    }
  }
  if (source == Place::pageable) {
    const auto* const begin = static_cast<const std::byte*>(from);
    return put_into(stream, {[to, staged = std::vector<std::byte>(begin, begin + bytes)] {
                      std::memcpy(to, staged.data(), staged.size());
                    }});
  }
  if (const cudaError_t error = put_into(stream, {[=] { std::memmove(to, from, bytes); }})) {
    return error;
  }
  if (target != Place::pageable) return cudaSuccess;
  wait_for(stream->tail);
  return sticky_error();
}

// The stream's last operation, for a call that waits or asks.
cudaError_t tail_of(cudaStream_t stream, OperationPtr& tail) {
  if (stream == nullptr) return cudaSuccess;
  Handles& handles = Handles::all();
  const std::scoped_lock lock(handles.mutex);
  if (!handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capture) {
    spoil(*stream->capture);
    return cudaErrorStreamCaptureUnsupported;
  }
  tail = stream->tail;
  return cudaSuccess;
}
cudaError_t recorded_in(cudaEvent_t event, OperationPtr& recorded) {
  Handles& handles = Handles::all();
  const std::scoped_lock lock(handles.mutex);
  if (!handles.events.contains(event)) return cudaErrorInvalidResourceHandle;
  if (event->capture) {
    spoil(*event->capture);
    return cudaErrorCapturedEvent;
  }
  recorded = event->recorded;
  return cudaSuccess;
}

// Work goes on by itself on a GPU: who asks again and again is told that it is done in the end.
cudaError_t query(const OperationPtr& operation) {
  if (!operation || is_done(operation)) return sticky_error();
  want(operation);
  return cudaErrorNotReady;
}
cudaError_t wait(const OperationPtr& operation) {
  wait_for(operation);
  return sticky_error();
}

cudaError_t join_capture(CUstream_st& stream, const CUevent_st& event) {
  if (event.capture->spoiled) return cudaErrorStreamCaptureInvalidated;
  if (event.capture->ended) return cudaErrorCapturedEvent;
  if (stream.capture && stream.capture != event.capture) {
    spoil(*stream.capture);
    spoil(*event.capture);
    return cudaErrorStreamCaptureMerge;
  }
  if (!stream.capture) {
    stream.capture = event.capture;
    stream.capture->streams.insert(&stream);
    stream.frontier.clear();
  }
  for (const std::size_t node : event.frontier) {
    if (std::find(stream.frontier.begin(), stream.frontier.end(), node) == stream.frontier.end()) {
      stream.frontier.push_back(node);
    }
  }
  return cudaSuccess;
}

}  // namespace
}  // namespace standin

using standin::answer;
using standin::Handles;
using standin::OperationPtr;

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return answer("cudaMemcpyAsync", [&] { return standin::copy(to, from, bytes, kind, stream); });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return answer("cudaMemsetAsync", [&] {
    if (bytes == 0) return cudaSuccess;
    const bool is_right =
        stream == nullptr || (standin::place_of(to, bytes) == standin::Place::device &&
                              !standin::leaves_allocation(to, bytes));
    if (!is_right) return cudaErrorInvalidValue;
    return standin::put_into(stream, {[=] { std::memset(to, value, bytes); }});
  });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return answer("cudaLaunchHostFunc", [&] {
    return standin::put_into(stream, {[=] { function(data); }, true});
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return answer("cudaStreamCreateWithFlags", [&] {
    auto made = std::make_unique<CUstream_st>();
    made->engine = standin::Engine::own();
    standin::hold(made->engine);
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    made->lane = made->engine->lanes++;
    made->flags = flags;
    handles.streams.insert(made.get());
    *stream = made.release();
    return cudaSuccess;
  });
}
// What is in it is still done.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return answer("cudaStreamDestroy", [&] {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    if (!handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture) {
      standin::spoil(*stream->capture);
      stream->capture->streams.erase(stream);
      if (stream->is_origin) handles.captures.erase(stream->capture);
    }
    handles.streams.erase(stream);
    if (stream->tail) standin::want(stream->tail);
    standin::release(stream->engine);
    delete stream;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return answer("cudaStreamSynchronize", [&] {
    OperationPtr tail;
    if (const cudaError_t error = standin::tail_of(stream, tail)) return error;
    if (const cudaError_t error = standin::refuse_while_capturing()) return error;
    return standin::wait(tail);
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return answer("cudaStreamQuery", [&] {
    OperationPtr tail;
    if (const cudaError_t error = standin::tail_of(stream, tail)) return error;
    return standin::query(tail);
  });
}
cudaError_t cudaDeviceSynchronize() {
  return answer("cudaDeviceSynchronize", [&] {
    if (const cudaError_t error = standin::refuse_while_capturing()) return error;
    standin::wait_for_all();
    standin::throw_failure();
    return standin::sticky_error();
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return answer("cudaStreamWaitEvent", [&] {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    if (!handles.streams.contains(stream) || !handles.events.contains(event)) {
      return cudaErrorInvalidResourceHandle;
    }
    if (event->capture) return standin::join_capture(*stream, *event);
    if (stream->capture) {
      if (!event->recorded) return cudaSuccess;
      standin::spoil(*stream->capture);
      return cudaErrorStreamCaptureIsolation;
    }
    if (!event->recorded) return cudaSuccess;
    stream->tail =
        standin::put(stream->engine, stream->lane, nullptr, {stream->tail, event->recorded});
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return answer("cudaEventCreateWithFlags", [&] {
    auto made = std::make_unique<CUevent_st>();
    made->flags = flags;
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    handles.events.insert(made.get());
    *event = made.release();
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return answer("cudaEventDestroy", [&] {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    if (handles.events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return answer("cudaEventRecord", [&] {
    Handles& handles = Handles::all();
    const std::scoped_lock lock(handles.mutex);
    if (!handles.events.contains(event)) return cudaErrorInvalidResourceHandle;
    event->capture = nullptr;
    event->recorded = nullptr;
    if (stream == nullptr) {  // which has done all it was given
      event->recorded = standin::put(standin::Engine::own(), 0, nullptr, {});
      standin::want(event->recorded);
      return cudaSuccess;
    }
    if (!handles.streams.contains(stream)) return cudaErrorInvalidResourceHandle;
    if (stream->capture) {
      if (stream->capture->spoiled) return cudaErrorStreamCaptureInvalidated;
      event->capture = stream->capture;
      event->frontier = stream->frontier;
    } else {
      stream->tail = standin::put(stream->engine, stream->lane, nullptr, {stream->tail});
      event->recorded = stream->tail;
    }
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return answer("cudaEventSynchronize", [&] {
    OperationPtr recorded;
    if (const cudaError_t error = standin::recorded_in(event, recorded)) return error;
    if (const cudaError_t error = standin::refuse_while_capturing()) return error;
    return standin::wait(recorded);
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return answer("cudaEventQuery", [&] {
    OperationPtr recorded;
    if (const cudaError_t error = standin::recorded_in(event, recorded)) return error;
    if (const cudaError_t error = standin::refuse_while_capturing()) return error;
    return standin::query(recorded);
  });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  return answer("cudaEventElapsedTime", [&] {
    OperationPtr first, last;
    if (const cudaError_t error = standin::recorded_in(begin, first)) return error;
    if (const cudaError_t error = standin::recorded_in(end, last)) return error;
    if (!first || !last || ((begin->flags | end->flags) & cudaEventDisableTiming) != 0) {
      return cudaErrorInvalidResourceHandle;
    }
    if (!standin::is_done(first) || !standin::is_done(last)) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(last->when - first->when).count();
    return cudaSuccess;
  });
}
