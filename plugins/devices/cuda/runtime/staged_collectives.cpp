#include "plugins/devices/cuda/runtime/staged_collectives.h"

#include <algorithm>
#include <utility>

#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {
namespace {

void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, void* stream) {
  check(cudaMemcpyAsync(to, from, bytes, kind, static_cast<cudaStream_t>(stream)),
        "copying a collective's tensor between device and host");
}

}  // namespace

StagedCollectives::StagedCollectives(Communicator& communicator, HostLane& lane)
    : communicator_(communicator), lane_(lane), buffer_(lane.buffer()) {}

void StagedCollectives::call(std::function<void()> work, void* stream) {
  if (next_ == calls_.size()) calls_.push_back(std::make_unique<HostCall>(lane_, std::move(work)));
  calls_[next_++]->enqueue(static_cast<cudaStream_t>(stream));
}

std::size_t StagedCollectives::piece(std::size_t times) const {
  return HostLane::buffer_bytes / times / 64 * 64;
}

void StagedCollectives::all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                                   void* stream) {
  const std::size_t all = static_cast<std::size_t>(count) * size_of(dtype);
  for (std::size_t done = 0; done < all;) {
    const std::size_t bytes = std::min(piece(1), all - done);
    char* const at = static_cast<char*>(data) + done;
    copy(buffer_, at, bytes, cudaMemcpyDeviceToHost, stream);
    call([this, elements = static_cast<std::int64_t>(bytes / size_of(dtype)), dtype,
          reduction] { communicator_.all_reduce(buffer_, elements, dtype, reduction); },
         stream);
    copy(at, buffer_, bytes, cudaMemcpyHostToDevice, stream);
    done += bytes;
  }
}

void StagedCollectives::all_gather(const void* in, void* out, std::size_t all, void* stream) {
  const auto ranks = static_cast<std::size_t>(communicator_.size());
  char* const gathered = buffer_ + piece(1 + ranks);
  for (std::size_t done = 0; done < all;) {
    const std::size_t bytes = std::min(piece(1 + ranks), all - done);
    copy(buffer_, static_cast<const char*>(in) + done, bytes, cudaMemcpyDeviceToHost, stream);
    call([this, gathered, bytes] { communicator_.all_gather(buffer_, gathered, bytes); }, stream);
    for (std::size_t r = 0; r < ranks; ++r) {
      copy(static_cast<char*>(out) + r * all + done, gathered + r * bytes, bytes,
           cudaMemcpyHostToDevice, stream);
    }
    done += bytes;
  }
}

void StagedCollectives::reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                                       void* stream) {
  const auto ranks = static_cast<std::size_t>(communicator_.size());
  const std::size_t all = static_cast<std::size_t>(count) * size_of(dtype);
  char* const sum = buffer_ + ranks * piece(1 + ranks);
  for (std::size_t done = 0; done < all;) {
    const std::size_t bytes = std::min(piece(1 + ranks), all - done);
    for (std::size_t r = 0; r < ranks; ++r) {
      copy(buffer_ + r * bytes, static_cast<const char*>(in) + r * all + done, bytes,
           cudaMemcpyDeviceToHost, stream);
    }
    call([this, sum, elements = static_cast<std::int64_t>(bytes / size_of(dtype)),
          dtype] { communicator_.reduce_scatter(buffer_, sum, elements, dtype); },
         stream);
    copy(static_cast<char*>(out) + done, sum, bytes, cudaMemcpyHostToDevice, stream);
    done += bytes;
  }
}

void StagedCollectives::broadcast(void* data, std::size_t all, int root, void* stream) {
  const bool sends = communicator_.rank() == root;
  for (std::size_t done = 0; done < all;) {
    const std::size_t bytes = std::min(piece(1), all - done);
    char* const at = static_cast<char*>(data) + done;
    if (sends) copy(buffer_, at, bytes, cudaMemcpyDeviceToHost, stream);
    call([this, bytes, root] { communicator_.broadcast(buffer_, bytes, root); }, stream);
    if (!sends) copy(at, buffer_, bytes, cudaMemcpyHostToDevice, stream);
    done += bytes;
  }
}

}  // namespace ftrain::cuda
