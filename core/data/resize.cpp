#include "core/data/resize.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "ftrain/data/image.h"

namespace ftrain {
namespace {

// The weights of `size` target pixels over `extent` source pixels, `scale` source pixels each, both
// centres on each other. The filter is a triangle of half width max(1, scale).
void make_taps(int extent, int size, double scale, std::vector<ResizeScratch::Taps>& taps) {
  const double reach = std::max(1.0, scale);
  taps.resize(static_cast<std::size_t>(size));
  for (int i = 0; i < size; ++i) {
    auto& tap = taps[static_cast<std::size_t>(i)];
    const double centre = (i + 0.5 - size / 2.0) * scale + extent / 2.0;
    const int first = std::clamp(static_cast<int>(std::ceil(centre - reach - 0.5)), 0, extent - 1);
    const int last =
        std::clamp(static_cast<int>(std::floor(centre + reach - 0.5)), first, extent - 1);
    tap.first = first;
    tap.weights.clear();
    double sum = 0;
    for (int source = first; source <= last; ++source) {
      const double weight = std::max(0.0, 1.0 - std::abs(source + 0.5 - centre) / reach);
      tap.weights.push_back(static_cast<float>(weight));
      sum += weight;
    }
    for (float& weight : tap.weights) weight = static_cast<float>(weight / sum);
  }
}

}  // namespace

void resize_into(const std::uint8_t* pixels, int width, int height, int size, std::uint8_t* out,
                 ResizeScratch& scratch) {
  const double scale = static_cast<double>(std::min(width, height)) / size;
  make_taps(width, size, scale, scratch.columns);
  make_taps(height, size, scale, scratch.rows);

  // Only source rows that some target row uses are resampled along x.
  const int top = scratch.rows.front().first;
  const auto& last = scratch.rows.back();
  const int bottom = last.first + static_cast<int>(last.weights.size());
  const std::size_t line = static_cast<std::size_t>(size) * 3;
  scratch.lines.resize(line * static_cast<std::size_t>(bottom - top));
  for (int y = top; y < bottom; ++y) {
    const std::uint8_t* source = pixels + static_cast<std::size_t>(y) * width * 3;
    float* target = scratch.lines.data() + static_cast<std::size_t>(y - top) * line;
    for (const auto& tap : scratch.columns) {
      float sum[3] = {0, 0, 0};
      const std::uint8_t* pixel = source + static_cast<std::size_t>(tap.first) * 3;
      for (const float weight : tap.weights) {
        for (int c = 0; c < 3; ++c) sum[c] += weight * static_cast<float>(pixel[c]);
        pixel += 3;
      }
      target = std::copy_n(sum, 3, target);
    }
  }

  for (const auto& tap : scratch.rows) {
    const float* source = scratch.lines.data() + static_cast<std::size_t>(tap.first - top) * line;
    for (std::size_t x = 0; x < line; ++x) {
      float sum = 0.5f;  // rounds
      for (std::size_t k = 0; k < tap.weights.size(); ++k)
        sum += tap.weights[k] * source[k * line + x];
      *out++ = static_cast<std::uint8_t>(std::clamp(sum, 0.0f, 255.0f));
    }
  }
}

Image resize(const Image& image, int size) {
  Image result{size, size, {}};
  if (image.width == size && image.height == size) {
    result.pixels = image.pixels;
    return result;
  }
  result.pixels.resize(static_cast<std::size_t>(size) * static_cast<std::size_t>(size) * 3);
  ResizeScratch scratch;
  resize_into(image.pixels.data(), image.width, image.height, size, result.pixels.data(), scratch);
  return result;
}

}  // namespace ftrain
