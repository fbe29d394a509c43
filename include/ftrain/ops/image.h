// From pixels to activations.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain::ops {

// u8 [N, H, W, 3] -> f32 [N, 3, H, W]: (x - mean) * scale, each sample flipped left to right with
// probability `flip` by Philox(seed, step, first_sample + n).
struct ImageNormalize {
  double mean = 127.5, scale = 1 / 127.5, flip = 0;
  std::uint64_t seed = 0;
  std::int64_t first_sample = 0;
};
FTRAIN_API Value image_normalize(Value image, Value step, const ImageNormalize& options);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef image_normalize;
}  // namespace def

}  // namespace ftrain::ops
