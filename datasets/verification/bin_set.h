// InsightFace's verification files (lfw.bin, cfp_fp.bin, ...): a pickle of (images, verdicts), 2 P
// encoded images for P pairs. Pair i is of the images 2 i and 2 i + 1.
//
// Ownership: the file stays mapped; images are copied out one at a time. Threads: as every PairSet.
#pragma once

#include <memory>
#include <span>

#include "datasets/verification/pickle.h"
#include "ftrain/base/mapped_file.h"
#include "ftrain/data/pair_set.h"

namespace ftrain {

class BinSet : public PairSet {
 public:
  void open(const std::filesystem::path& path, std::uint64_t seed) override;
  std::int64_t images() const override { return static_cast<std::int64_t>(images_.size()); }
  std::vector<std::uint8_t> image(std::int64_t index) const override;
  const std::vector<Pair>& pairs() const override { return pairs_; }
  std::string describe_image(std::int64_t index) const override;

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::unique_ptr<Pickle> pickle_;
  std::vector<std::span<const std::uint8_t>> images_;
  std::vector<Pair> pairs_;
};

}  // namespace ftrain
