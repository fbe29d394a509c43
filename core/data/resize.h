// The resampling behind resize() and Decoder::decode_to(), with the scratch memory handed in.
#pragma once

#include <cstdint>
#include <vector>

namespace ftrain {

// What one resampling needs beside its source and target; reused from call to call.
struct ResizeScratch {
  struct Taps {
    int first;                   // the first source pixel
    std::vector<float> weights;  // of the source pixels from there on; their sum is 1
  };
  std::vector<Taps> columns, rows;
  std::vector<float> lines;  // source rows, already resampled along x
};

// `pixels` are width x height RGB without padding; `out` receives size x size of them.
void resize_into(const std::uint8_t* pixels, int width, int height, int size, std::uint8_t* out,
                 ResizeScratch& scratch);

}  // namespace ftrain
