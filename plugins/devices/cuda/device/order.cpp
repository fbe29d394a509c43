#include "plugins/devices/cuda/device/order.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ftrain/base/error.h"
#include "plugins/devices/cuda/device/layout.h"

namespace ftrain::cuda {
namespace {

struct Extents {
  std::size_t images = 1, channels = 1, positions = 1;
};

Extents extents_of(const TensorType& type) {
  if (type.layout != channels_last || type.shape.rank() != 4) {
    throw DeviceError("the CUDA device has no order of " + type.text());
  }
  const auto extent = [&](std::size_t axis) { return static_cast<std::size_t>(type.shape[axis]); };
  return {extent(0), extent(1), extent(2) * extent(3)};
}

// Of each image, `rows` rows of `columns` elements become columns.
void transpose(const char* from, char* to, std::size_t images, std::size_t rows,
               std::size_t columns, std::size_t size) {
  for (std::size_t n = 0; n < images; ++n) {
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < columns; ++c) {
        std::memcpy(to + (c * rows + r) * size, from + (r * columns + c) * size, size);
      }
    }
    from += rows * columns * size;
    to += rows * columns * size;
  }
}

}  // namespace

bool is_row_major(const TensorType& type) {
  if (type.layout == row_major) return true;
  const Extents extents = extents_of(type);
  return extents.channels == 1 || extents.positions == 1;
}

void to_row_major(const TensorType& type, const void* from, void* row_major) {
  if (is_row_major(type)) {
    std::memcpy(row_major, from, type.bytes());
    return;
  }
  const Extents e = extents_of(type);
  transpose(static_cast<const char*>(from), static_cast<char*>(row_major), e.images, e.positions,
            e.channels, size_of(type.dtype));
}

void from_row_major(const TensorType& type, const void* row_major, void* to) {
  if (is_row_major(type)) {
    std::memcpy(to, row_major, type.bytes());
    return;
  }
  const Extents e = extents_of(type);
  transpose(static_cast<const char*>(row_major), static_cast<char*>(to), e.images, e.channels,
            e.positions, size_of(type.dtype));
}

}  // namespace ftrain::cuda
