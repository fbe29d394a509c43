// Products of matrices by cuBLASLt: the library's handle and the algorithms chosen for products.
//
// For each distinct product the fastest algorithm is taken that gives the same bits every time (no
// sums in the order in which blocks happen to end): measured once where there is leave to, and kept
// in a file by GPU, driver and version of cuBLASLt; otherwise the first that its heuristics name.
// Ownership: the device owns it, and it outlives all plans. Threads: plans are made by one thread
// at a time. Failure: DeviceError with the status by name and the product.
//
// No type of cuBLASLt's stands here, so that others may multiply in its place: cublaslt/matmul.cpp
// and plan_product() know this interface alone.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "plugins/devices/cuda/ops/tile_product.h"

namespace ftrain::cuda {

struct CublasOptions {
  std::string gpu;  // the device's name, as the driver says it
  int driver = 0;   // its version, as cudaDriverGetVersion says it
  // Measure what is not known yet (on memory of its own, which is given back), or ask heuristics.
  bool autotune = true;
  // Where measured algorithms are kept, cache_file("cublaslt.json"); empty: nowhere.
  std::filesystem::path file;
  std::size_t workspace_limit = std::size_t{64} << 20;  // bytes a plan may want
};

class Cublas {
 public:
  virtual ~Cublas() = default;
  virtual std::string version() const = 0;  // "13.0.2"
  // Why it cannot do the product; empty: it can.
  virtual std::string refuse(const ProductShape& shape) const = 0;
  // One partial result. DeviceError when no algorithm does it.
  virtual std::shared_ptr<const ProductPlan> plan(const ProductShape& shape) = 0;
  // The algorithms taken so far, as text, and the same given to another process before it plans:
  // it takes them again, hence computes the same bits. What was found on another machine is passed
  // over. DataError when the text is none.
  virtual std::string choices() const = 0;
  virtual void repeat(std::string_view choices) = 0;
};

// For the current device. Null where the build found no cuBLASLt. DeviceError when it does not work
// here.
std::unique_ptr<Cublas> open_cublas(const CublasOptions& options);

}  // namespace ftrain::cuda
