#include "ftrain/base/suggest.h"

#include <algorithm>
#include <cctype>
#include <cstddef>

namespace ftrain {
namespace {

std::string folded(std::string_view word) {
  std::string result(word);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

// Damerau-Levenshtein distance, each pair of neighbours swapped at most once.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] =
          std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

}  // namespace

std::vector<std::string> near_names(std::string_view name,
                                    std::span<const std::string> candidates) {
  const std::string wanted = folded(name);
  std::vector<std::pair<std::size_t, std::string>> near;
  if (wanted.empty()) return {};
  for (const std::string& candidate : candidates) {
    const std::string other = folded(candidate);
    if (other.empty()) continue;
    const std::size_t edits = distance(wanted, other);
    if (edits * 3 <= wanted.size() || other.find(wanted) != std::string::npos ||
        wanted.find(other) != std::string::npos) {
      near.emplace_back(edits, candidate);
    }
  }
  std::sort(near.begin(), near.end());
  near.erase(std::unique(near.begin(), near.end()), near.end());
  std::vector<std::string> names;
  for (const auto& [edits, candidate] : near) {
    if (names.size() < 3) names.push_back(candidate);
  }
  return names;
}

std::string did_you_mean(std::string_view name, std::span<const std::string> candidates) {
  std::vector<std::string> near = near_names(name, candidates);
  if (near.empty()) return "";
  for (std::string& word : near) word = "'" + word + "'";
  return " Did you mean " + join(near, " or ") + "?";
}

std::string join(std::span<const std::string> words, std::string_view last, std::string_view none) {
  if (words.empty()) return std::string(none);
  std::string text = words[0];
  for (std::size_t i = 1; i < words.size(); ++i) {
    text += i + 1 == words.size() ? std::string(last) : ", ";
    text += words[i];
  }
  return text;
}

}  // namespace ftrain
