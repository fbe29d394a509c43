#include "plugins/devices/cuda/runtime/staging.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {

// Pinning takes time: done when something is copied first.
void Staging::open(std::size_t bytes) {
  bytes = std::min(bytes, piece_bytes_);
  pieces_.resize(2);
  for (Piece& piece : pieces_) {
    if (piece.memory.bytes() >= bytes) continue;
    piece.memory = PinnedMemory(bytes, "copies between the host and the GPU");
  }
}

void Staging::to_host(void* to, const void* from, std::size_t bytes, cudaStream_t stream,
                      std::string_view what) {
  const std::string doing = "reading " + std::string(what);
  open(bytes);
  const std::size_t chunks = (bytes + piece_bytes_ - 1) / piece_bytes_;
  const auto size_of_chunk = [&](std::size_t i) {
    return std::min(piece_bytes_, bytes - i * piece_bytes_);
  };
  for (std::size_t i = 0; i <= chunks; ++i) {
    if (i < chunks) {
      Piece& piece = pieces_[i % 2];
      check(cudaMemcpyAsync(piece.memory.data(), static_cast<const char*>(from) + i * piece_bytes_,
                            size_of_chunk(i), cudaMemcpyDeviceToHost, stream),
            doing);
      piece.done.record(stream);
    }
    if (i > 0) {
      Piece& piece = pieces_[(i - 1) % 2];
      piece.done.wait(doing);
      std::memcpy(static_cast<char*>(to) + (i - 1) * piece_bytes_, piece.memory.data(),
                  size_of_chunk(i - 1));
    }
  }
}

void Staging::to_device(void* to, const void* from, std::size_t bytes, cudaStream_t stream,
                        std::string_view what) {
  const std::string doing = "writing " + std::string(what);
  open(bytes);
  for (std::size_t at = 0, i = 0; at < bytes; at += piece_bytes_, ++i) {
    Piece& piece = pieces_[i % 2];
    const std::size_t size = std::min(piece_bytes_, bytes - at);
    if (i > 1) piece.done.wait(doing);
    std::memcpy(piece.memory.data(), static_cast<const char*>(from) + at, size);
    check(cudaMemcpyAsync(static_cast<char*>(to) + at, piece.memory.data(), size,
                          cudaMemcpyHostToDevice, stream),
          doing);
    piece.done.record(stream);
  }
  finish(stream, doing);
}

}  // namespace ftrain::cuda
