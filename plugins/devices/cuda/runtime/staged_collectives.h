// Collectives of a device through the host's memory, for communicators that know nothing of
// devices: copied there, exchanged by a call between the stream's kernels, copied back, in pieces
// that the lane's buffer holds. All of it is enqueued and may be captured.
//
// Ownership: one for each kernel; it keeps the calls that the kernel enqueued, so it outlives the
// graphs they were captured into. Threads: the rank's own. Failure: DeviceError from CUDA; what the
// communicator throws is the lane's.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "ftrain/device/communicator.h"
#include "plugins/devices/cuda/runtime/host_work.h"

namespace ftrain::cuda {

class StagedCollectives final : public DeviceCollectives {
 public:
  StagedCollectives(Communicator& communicator, HostLane& lane);

  // A launch begins: the calls of the one before, which are the same, are enqueued again.
  void begin_launch() { next_ = 0; }

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                  void* stream) override;
  void all_gather(const void* in, void* out, std::size_t bytes, void* stream) override;
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                      void* stream) override;
  void broadcast(void* data, std::size_t bytes, int root, void* stream) override;
  void begin_group() override {}
  void end_group() override {}

 private:
  void call(std::function<void()> work, void* stream);
  // Bytes of a piece of which the buffer is to hold `times`, in whole elements.
  std::size_t piece(std::size_t times) const;

  Communicator& communicator_;
  HostLane& lane_;
  char* const buffer_;
  std::vector<std::unique_ptr<HostCall>> calls_;
  std::size_t next_ = 0;
};

}  // namespace ftrain::cuda
