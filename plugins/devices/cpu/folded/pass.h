// The last steps of a folded convolution over a tile of its result.
#pragma once

#include <cstdint>
#include <string>

namespace ftrain::cpu {

// y = prelu(y + bias, slope) + other over `rows` rows of `block` floats.
struct LastSteps {
  float* y = nullptr;
  const float* bias = nullptr;   // [block]; or like y
  const float* slope = nullptr;  // [block]; nullptr: none
  const float* other = nullptr;  // like y; nullptr: none
  std::int64_t rows = 0, block = 0;
  bool by_position = false;  // bias is like y
};

using LastStepsFunction = void (*)(const LastSteps&);
LastStepsFunction last_steps_for(const std::string& isa);

}  // namespace ftrain::cpu
