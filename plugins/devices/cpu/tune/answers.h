// What measuring kernels answered, and the file in which a machine keeps it.
//
// The file is one JSON object: processor -> circumstances (versions, instructions, threads,
// options) -> problem -> the kernel taken and every candidate's seconds. It may be removed at any
// time: what is asked again is measured again.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/runtime/kernel.h"

namespace ftrain::cpu {

struct Answer {
  std::string kernel;
  std::vector<std::pair<std::string, double>> seconds;  // every candidate's
};

using Answers = std::map<std::string, Answer>;  // by problem

// Under what answers hold.
struct Circumstances {
  std::string processor;  // "AMD EPYC, family 25 model 17 stepping 1"
  std::string rest;       // "oneDNN 2.6.3, ftrain 0.1.0 ..., avx512, 2 threads, winograd"
  auto operator<=>(const Circumstances&) const = default;
};
Circumstances circumstances_of(const KernelEnvironment& environment);

// An op with its attributes, and the types and layouts of its operands: "conv2d stride=1 ...
// (f32[...], f32[...]) -> f32[...]".
std::string problem_of(const Node& node);

// $FTRAIN_CACHE, $XDG_CACHE_HOME/ftrain or ~/.cache/ftrain, and there kernels.json. Empty when the
// environment names none of them.
std::filesystem::path answers_file();

// The file's text of `answers` alone, and with `answers` added to a file's `text` (empty: a new
// file).
std::string text_of(const Answers& answers, const Circumstances& circumstances,
                    std::string_view text = {});
// The answers in a file's text that hold under `circumstances`. DataError when the text is no such
// file.
Answers answers_in(std::string_view text, const Circumstances& circumstances);

}  // namespace ftrain::cpu
