// The passes that Winograd's convolutions are made of, by instruction set. They know no threads.
//
// F(4x4, 3x3): an image is cut into tiles of 4x4 results, each made of a patch of 6x6 pixels. A
// transform turns every patch into 36 numbers, and every 3x3 filter likewise; then a convolution is
// 36 separate matrix products, one for each of these points, and a second transform makes 4x4
// results out of 36 numbers. The weight gradient goes through the same points the other way.
// Where 4 does not divide the image there are also tiles of 3 rows or columns: they have 5 of the 6
// points of that direction, so that images of 7 or 14 pixels waste nothing.
//
// Everything between the transforms lies as [point][channel block][tile][B], with strides between
// points and between blocks, B channels in a block: so a transform writes 36 streams, and every
// product reads and writes vectors of channels.
#pragma once

#include <cstdint>
#include <string>

namespace ftrain::cpu::winograd {

inline constexpr std::int64_t points = 36, tile_side = 4, taps = 9;

// A run of tiles of one channel block, between an image and its points.
struct TileRun {
  void* image = nullptr;  // [N][blocks][height][width][B] of float or BF16, at this block
  bool bf16 = false;
  float* at = nullptr;  // point 0 of the first tile
  std::int64_t point_stride = 0;
  std::int64_t sample_stride = 0;  // elements from a sample's plane to the next sample's
  std::int64_t height = 0, width = 0;
  std::int64_t rows = 4, columns = 4;  // of results in a tile
  std::int64_t top = 0, left = 0;      // where the first tile begins; may be before the image
  std::int64_t tiles_high = 0, tiles_wide = 0;
  std::int64_t first = 0, count = 0;  // tiles, counted through all samples
};

// Filters of B inputs and B outputs, [tap][input][output], and their points: [input][output] each.
struct FilterBlock {
  float* filters = nullptr;
  float* at = nullptr;
  std::int64_t point_stride = 0;
  bool add = false;  // of filter gradients: to what is there
};

// out[column block][row] = sum over blocks and lanes of a[block][row][lane] *
// b[column block][block][lane]: of images by filters, B results at once. Strides are from block to
// block, in floats.
struct Product {
  const float *a = nullptr, *b = nullptr;
  float* out = nullptr;
  std::int64_t a_stride = 0, b_stride = 0, out_stride = 0;
  std::int64_t rows = 0, depth = 0, columns = 0;  // tiles, blocks, blocks
};

// out[column block][block][lane] = sum over tiles of a[block][tile][lane] * b[column block][tile]:
// of images by gradients.
struct Correlation {
  const float *a = nullptr, *b = nullptr;
  float* out = nullptr;
  std::int64_t a_stride = 0, b_stride = 0, out_stride = 0;
  std::int64_t rows = 0, depth = 0, columns = 0;  // blocks, tiles, blocks
};

struct Passes {
  std::int64_t block = 0;                                      // B
  void (*patches)(const TileRun& run) = nullptr;               // 6x6 pixels to points
  void (*results)(const TileRun& run) = nullptr;               // points to 4x4 results
  void (*gradients)(const TileRun& run) = nullptr;             // 4x4 gradients to points
  void (*filters)(const FilterBlock& run) = nullptr;           // 3x3 filters to points
  void (*filter_gradients)(const FilterBlock& run) = nullptr;  // points to 3x3 gradients
  void (*multiply)(const Product& product) = nullptr;
  void (*correlate)(const Correlation& correlation) = nullptr;
};

// For the best instruction set that both the machine and `isa` allow.
Passes passes_for(const std::string& isa);

void add_products(const std::string& isa, Passes& passes);    // products.cpp
void add_transforms(const std::string& isa, Passes& passes);  // transforms.cpp

}  // namespace ftrain::cpu::winograd
