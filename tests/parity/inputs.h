// The start weights, images and labels of the parity cases: formula.py's decomposition, to the bit.
//
// Header-only and free of state; the formulas are in README.md beside this file.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ftrain/base/philox.h"

namespace ftrain::parity {

constexpr int kSide = 112;

inline std::uint64_t fnv1a64(const void* data, std::size_t size) {
  std::uint64_t value = 0xCBF29CE484222325ull;
  for (std::size_t i = 0; i < size; ++i) {
    value = (value ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001B3ull;
  }
  return value;
}

inline std::uint64_t stream(std::string_view name) {
  return mix64(2048, fnv1a64(name.data(), name.size()));
}

// How a tensor's elements are drawn; a deviation of 0 makes them all `mean`.
struct Law {
  double deviation = 0;
  double mean = 0;
};

// `name` and `shape` as in the backbone's state_dict; `iresnet` or else MobileFaceNet.
inline Law law(const std::string& name, const std::vector<std::int64_t>& shape, bool iresnet) {
  const auto ends = [&](std::string_view tail) {
    return name.size() >= tail.size() &&
           name.compare(name.size() - tail.size(), tail.size(), tail) == 0;
  };
  if (ends("running_mean")) return {0, 0};
  if (ends("running_var") || (iresnet && name == "features.weight")) return {0, 1};
  if (name == "fc.weight" || name == "fc.bias") return {1 / std::sqrt(3.0 * 25088), 0};
  if (shape.size() == 1) {
    if (ends("bias")) return {0.1, 0};
    if (ends("prelu.weight") || ends(".layers.2.weight")) return {0.05, iresnet ? 0.25 : 0.9};
    return {0.1, 1};
  }
  if (iresnet) return {0.1, 0};
  std::int64_t fan = shape[0];
  for (std::size_t i = 2; i < shape.size(); ++i) fan *= shape[i];
  return {std::sqrt(2.0 / static_cast<double>(fan)), 0};
}

// The class centers are draw("centers.weight", classes * embedding, {0.01, 0}).
inline std::vector<float> draw(std::string_view name, std::int64_t count, Law law) {
  std::vector<float> out(static_cast<std::size_t>(count), static_cast<float>(law.mean));
  if (law.deviation == 0) return out;
  const std::uint64_t key = stream(name);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const Philox bits = Philox::at(key, 0, i);
    double total = 0;
    for (int lane = 0; lane < 4; ++lane) total += static_cast<double>(bits.uniform(lane));
    out[i] = static_cast<float>((total - 2.0) * 1.7320508075688772 * law.deviation + law.mean);
  }
  return out;
}

// RGB, row by row, channels innermost.
inline std::vector<std::uint8_t> image(std::uint64_t index) {
  constexpr int kNodes = kSide / 16 + 1;
  const std::uint64_t grid_key = stream("image.grid");
  const std::uint64_t noise_key = stream("image.noise");
  int grid[3][kNodes][kNodes];
  for (int i = 0; i < 3 * kNodes * kNodes; ++i) {
    grid[i / (kNodes * kNodes)][i / kNodes % kNodes][i % kNodes] =
        static_cast<int>(Philox::at(grid_key, index, static_cast<std::uint64_t>(i)).word[0] >> 24);
  }
  std::vector<std::uint8_t> out(kSide * kSide * 3);
  for (int i = 0; i < kSide * kSide * 3; ++i) {
    const int c = i % 3, x = i / 3 % kSide, y = i / 3 / kSide;
    const int a = y % 16, b = x % 16, row = y / 16, column = x / 16;
    const int smooth =
        ((16 - a) * ((16 - b) * grid[c][row][column] + b * grid[c][row][column + 1]) +
         a * ((16 - b) * grid[c][row + 1][column] + b * grid[c][row + 1][column + 1])) >>
        8;
    const std::uint32_t bits =
        Philox::at(noise_key, index, static_cast<std::uint64_t>(i)).word[0] >> 27;
    out[static_cast<std::size_t>(i)] =
        static_cast<std::uint8_t>(std::clamp(smooth + static_cast<int>(bits) - 16, 0, 255));
  }
  return out;
}

inline std::int64_t label(std::int64_t index, std::int64_t classes) {
  return (classes - 1 + 33 * index) % classes;
}

}  // namespace ftrain::parity
