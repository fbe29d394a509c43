#include "datasets/verification/bin_set.h"

#include <optional>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

using Kind = PickleValue::Kind;

std::optional<bool> verdict_of(const PickleValue& value) {
  const bool known = (value.kind == Kind::boolean || value.kind == Kind::integer) &&
                     (value.integer == 0 || value.integer == 1);
  return known ? std::optional(value.integer == 1) : std::nullopt;
}

std::vector<bool> read_verdicts(const Pickle& pickle, const PickleValue& list,
                                const std::string& where) {
  std::vector<bool> result;
  if (list.kind == Kind::array) {  // a numpy array of bool
    for (const std::uint8_t b : list.bytes) result.push_back(b != 0);
    return result;
  }
  if (list.kind != Kind::list && list.kind != Kind::tuple)
    throw DataError(where + ": its second part is no list of verdicts");
  for (const std::uint32_t index : list.children) {
    const auto verdict = verdict_of(pickle[index]);
    if (!verdict)
      throw DataError(where + ": verdict " + std::to_string(result.size()) + " is no bool");
    result.push_back(*verdict);
  }
  return result;
}

}  // namespace

void BinSet::open(const std::filesystem::path& path, std::uint64_t) {
  const std::string where = path.string();
  path_ = path;
  images_.clear();
  pairs_.clear();
  file_ = MappedFile(path);
  pickle_ = std::make_unique<Pickle>(file_.bytes(), where);
  const Pickle& pickle = *pickle_;
  const PickleValue& root = pickle.root();
  if ((root.kind != Kind::tuple && root.kind != Kind::list) || root.children.size() != 2)
    throw DataError(where + ": is no pair of images and verdicts");
  const PickleValue& bins = pickle[root.children[0]];
  if (bins.kind != Kind::list && bins.kind != Kind::tuple)
    throw DataError(where + ": its first part is no list of images");
  for (const std::uint32_t index : bins.children) {
    const PickleValue& bin = pickle[index];
    const bool array = bin.kind == Kind::array && pickle.dtype(bin) != "b1";
    if ((bin.kind != Kind::bytes && !array) || bin.bytes.empty())
      throw DataError(where + ": image " + std::to_string(images_.size()) +
                      " is no byte string and no array of bytes");
    images_.push_back(bin.bytes);
  }
  const std::vector<bool> verdicts = read_verdicts(pickle, pickle[root.children[1]], where);
  if (images_.size() != 2 * verdicts.size())
    throw DataError(where + ": holds " + std::to_string(images_.size()) + " images and " +
                    std::to_string(verdicts.size()) + " verdicts, a pair needs two images");
  for (std::size_t i = 0; i < verdicts.size(); ++i) {
    const auto first = static_cast<std::int64_t>(2 * i);
    pairs_.push_back({first, first + 1, verdicts[i]});
  }
}

std::vector<std::uint8_t> BinSet::image(std::int64_t index) const {
  const auto bytes = images_.at(static_cast<std::size_t>(index));
  return {bytes.begin(), bytes.end()};
}

std::string BinSet::describe_image(std::int64_t index) const {
  return path_.string() + " image " + std::to_string(index);
}

}  // namespace ftrain
