// The GPU of a rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ftrain::cuda {

struct Gpu {
  int index = 0;  // among those that the process sees
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 1;
  std::size_t memory_bytes = 0, l2_bytes = 0;
  int driver = 0, runtime = 0;  // 13000: CUDA 13.0
  bool assumed = false;         // not there: programs are prepared for it, and none is run

  // Makes it the calling thread's. Cheap where it is already.
  void use() const;
  // What of the second cache a walk over class centers may fill.
  std::int64_t tile_bytes() const;
  // "NVIDIA H200 (GPU 0, sm_90, 139.8 GiB), CUDA 13.0, driver 13.0"
  std::string text() const;
};

// One of those that assumed_names() lists, as it would be.
Gpu assumed_gpu(std::string_view name);
std::vector<std::string> assumed_names();

// The rank's: `chosen` where that is not negative, else the one with the rank's number among those
// of its machine. DeviceError when there is no driver, it is too old for this program, there is no
// such GPU, or the program has no code for it. It is the calling thread's from now on.
Gpu find_gpu(std::int64_t chosen, int local_rank, int local_ranks);

}  // namespace ftrain::cuda
