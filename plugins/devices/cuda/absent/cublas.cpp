// In the place of cuBLASLt's half of cublaslt/ where the build found no cuBLASLt.
#include "plugins/devices/cuda/cublaslt/cublas.h"

namespace ftrain::cuda {

std::unique_ptr<Cublas> open_cublas(const CublasOptions&) {
  return nullptr;
}

}  // namespace ftrain::cuda
