#include "datasets/verification/tsv_set.h"

#include <array>
#include <string_view>
#include <unordered_map>

#include "ftrain/base/error.h"
#include "ftrain/base/mapped_file.h"

namespace ftrain {
namespace {

// Both kinds of pairs dealt evenly, each in its own order.
std::vector<Pair> dealt(const std::vector<Pair>& pairs) {
  std::vector<Pair> same, different, result;
  for (const Pair& pair : pairs) (pair.same ? same : different).push_back(pair);
  std::size_t s = 0, d = 0;
  while (result.size() < pairs.size()) {
    // The kind that is behind its share of what has been dealt; `same` first when both are even.
    const bool take_same = s < same.size() && s * different.size() <= d * same.size();
    result.push_back(take_same ? same[s++] : different[d++]);
  }
  return result;
}

}  // namespace

void TsvSet::configure(Keys& keys) {
  keys.bind("order", order_,
            "even: pairs of one and of two people are dealt evenly over the folds; file: as the "
            "list has them",
            one_of(std::vector<std::string>{"even", "file"}));
}

void TsvSet::open(const std::filesystem::path& path, std::uint64_t) {
  files_.clear();
  pairs_.clear();
  const MappedFile list(path);
  std::string_view rest(reinterpret_cast<const char*>(list.bytes().data()), list.bytes().size());
  std::unordered_map<std::string, std::int64_t> known;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const auto fail = [&](const std::string& what) {
      throw DataError(path.string() + ":" + std::to_string(number) + ": " + what);
    };
    const std::size_t first = line.find('\t');
    const std::size_t second = first == std::string_view::npos ? first : line.find('\t', first + 1);
    if (second == std::string_view::npos) fail("needs file<TAB>file<TAB>1 or 0");
    const std::string_view verdict = line.substr(second + 1);
    if (verdict != "1" && verdict != "0")
      fail("the third field is 1 (same person) or 0, got '" + std::string(verdict) + "'");
    std::array<std::int64_t, 2> images{};
    const std::array<std::string_view, 2> names{line.substr(0, first),
                                                line.substr(first + 1, second - first - 1)};
    for (std::size_t i = 0; i < 2; ++i) {
      if (names[i].empty()) fail("a file's name is empty");
      const auto [it, fresh] = known.try_emplace(std::string(names[i]), 0);
      if (fresh) {
        it->second = static_cast<std::int64_t>(files_.size());
        files_.push_back(path.parent_path() / std::string(names[i]));
        std::error_code error;
        if (!std::filesystem::is_regular_file(files_.back(), error))
          fail("there is no file " + files_.back().string());
      }
      images[i] = it->second;
    }
    pairs_.push_back({images[0], images[1], verdict == "1"});
  }
  if (pairs_.empty()) throw DataError(path.string() + ": holds no pairs");
  if (order_ == "even") pairs_ = dealt(pairs_);
}

std::vector<std::uint8_t> TsvSet::image(std::int64_t index) const {
  const MappedFile file(files_.at(static_cast<std::size_t>(index)));
  return {file.bytes().begin(), file.bytes().end()};
}

std::string TsvSet::describe_image(std::int64_t index) const {
  return files_.at(static_cast<std::size_t>(index)).string();
}

}  // namespace ftrain
