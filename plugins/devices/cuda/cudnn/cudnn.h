// Convolutions by cuDNN: the library's handle, and the plans chosen for convolutions.
//
// A plan is one of cuDNN's engines with its settings. For each distinct convolution the fastest one
// is taken that gives the same bits every time: measured once where there is leave to, and kept in
// a file by GPU, driver and version of cuDNN; otherwise the first that cuDNN's heuristics name.
// Ownership: the device owns it; it outlives the kernels made with it. Threads: kernels of one
// device are made by one thread at a time. Failure: DeviceError with cuDNN's own text; a file that
// cannot be read or written is worth one warning.
//
// No type of cuDNN's stands here, so that others may do convolutions in its place.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "core/compile/tuning_cache.h"

namespace ftrain::cuda {

struct CudnnOptions {
  std::string gpu;  // the device's name, as the driver says it
  int driver = 0;   // its version, as cudaDriverGetVersion says it
  // Measure what is not known yet (on memory of its own, which is given back), or ask heuristics.
  bool autotune = true;
  // Where measured plans are kept; empty: nowhere. See plans_file().
  std::filesystem::path file = {};
  std::size_t workspace_limit = std::size_t{1} << 30;  // bytes a plan may want
};

class Cudnn {
 public:
  virtual ~Cudnn() = default;
  virtual std::string version() const = 0;  // "9.19.0"
  // The plans taken so far, as text (empty: none), and the same given to another process before it
  // makes its kernels: it takes them again, hence computes the same bits. Those of another GPU,
  // driver or version are passed over. DataError when the text is none.
  virtual std::string choices() const = 0;
  virtual void repeat(std::string_view choices) = 0;
};

// For the current device. DeviceError when cuDNN does not work here.
std::unique_ptr<Cudnn> open_cudnn(const CudnnOptions& options);

// cudnn_plans.json in the folder of caches; empty when the environment names none.
inline std::filesystem::path plans_file() {
  return cache_file("cudnn_plans.json");
}

}  // namespace ftrain::cuda
