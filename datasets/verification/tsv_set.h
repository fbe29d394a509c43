// Pair lists: a text file whose lines are "file<TAB>file<TAB>1" (same person) or "...<TAB>0", the
// files relative to the list's folder. Images are read when asked for; a file named in several
// lines is one image. Threads: as every PairSet.
//
// Folds are runs of the pairs, so a list that names all same pairs first would give folds of one
// kind, in which accuracy means nothing. Unless `order` is "file", both kinds are dealt evenly over
// the set, each in its own order: a list that is dealt evenly already keeps its folds.
#pragma once

#include "ftrain/data/pair_set.h"

namespace ftrain {

class TsvSet : public PairSet {
 public:
  void configure(Keys& keys) override;
  void open(const std::filesystem::path& path, std::uint64_t seed) override;
  std::int64_t images() const override { return static_cast<std::int64_t>(files_.size()); }
  std::vector<std::uint8_t> image(std::int64_t index) const override;
  const std::vector<Pair>& pairs() const override { return pairs_; }
  std::string describe_image(std::int64_t index) const override;

 private:
  std::string order_ = "even";
  std::vector<std::filesystem::path> files_;
  std::vector<Pair> pairs_;
};

}  // namespace ftrain
