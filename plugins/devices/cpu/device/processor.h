// What processor this is, what it can do, and how much of that the process uses.
#pragma once

#include <string>
#include <string_view>

namespace ftrain::cpu {

// The most that this processor can do: "plain", "avx2" or "avx512".
std::string best_isa();
// Does `isa` ask for no more than `most`?
bool is_within(std::string_view isa, std::string_view most);
// Does it have dot products of bf16 (AVX512_BF16)?
bool has_bf16();

// Tells oneDNN and Highway what to use at most, once in a process: both keep what they are told.
// DeviceError when they were told something else before.
void limit_isa(const std::string& isa);

struct Processor {
  std::string name;  // "AMD EPYC"; several generations may share it
  std::string kind;  // the name with family, model and stepping
};
const Processor& processor();

}  // namespace ftrain::cpu
