// Near names for error messages.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ftrain/plugin/api.h"

namespace ftrain {

// The candidates that a typing slip could have meant, nearest first, at most three: those whose
// edit distance (insert, delete, replace, swap of neighbours) is at most a third of the name's
// length, and those that contain the name or are contained in it.
FTRAIN_API std::vector<std::string> near_names(std::string_view name,
                                               std::span<const std::string> candidates);

// " Did you mean 'arcface' or 'cosface'?" with its leading blank, or "" when nothing is near.
FTRAIN_API std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);

// "a, b and c": for lists in messages. `none` when the list is empty.
FTRAIN_API std::string join(std::span<const std::string> words, std::string_view last = " and ",
                            std::string_view none = "none");

}  // namespace ftrain
