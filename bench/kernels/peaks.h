// What this machine can do at most, measured: the ceilings that kernels are held against.
#pragma once

#include <string>

namespace ftrain::bench {

struct Peaks {
  double f32_flops = 0;   // fused multiply-adds in registers, all threads
  double bf16_flops = 0;  // the best of large bf16 products by oneDNN; 0 without the instructions
  double read_bytes = 0;  // a second, reading 512 MiB
  double copy_bytes = 0;  // a second, read and written, of two times 256 MiB
  std::string text() const;
};

// `isa` as the CPU device's key. Takes about two seconds.
Peaks measure_peaks(int threads, const std::string& isa, bool bf16);

}  // namespace ftrain::bench
