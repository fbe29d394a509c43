// Copies between ordinary memory of the host and the GPU through two pinned pieces in turn: one is
// copied by the host while the other one travels, and a tensor of gigabytes takes no more.
//
// Both wait until they are done. Threads: one. Failure: DeviceError.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "plugins/devices/cuda/runtime/memory.h"
#include "plugins/devices/cuda/runtime/stream.h"

namespace ftrain::cuda {

class Staging {
 public:
  explicit Staging(std::size_t piece_bytes = std::size_t{8} << 20) : piece_bytes_(piece_bytes) {}

  // In the stream's order. `what`: "state 'conv1.weight'".
  void to_host(void* to, const void* from, std::size_t bytes, cudaStream_t stream,
               std::string_view what);
  void to_device(void* to, const void* from, std::size_t bytes, cudaStream_t stream,
                 std::string_view what);

 private:
  struct Piece {
    PinnedMemory memory;
    Event done;
  };
  void open(std::size_t bytes);

  std::size_t piece_bytes_;
  std::vector<Piece> pieces_;  // two, when something was copied
};

}  // namespace ftrain::cuda
