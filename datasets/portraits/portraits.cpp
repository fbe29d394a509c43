// Rendered faces: a data set of any number of identities and a verification set of unseen ones,
// out of nothing but the seed. Images are rendered when they are read, about half a millisecond
// each at 112 pixels, and handed out as JPEG.
#include <array>
#include <string>
#include <vector>

#include "datasets/portraits/render.h"
#include "ftrain/base/philox.h"
#include "ftrain/data/dataset.h"
#include "ftrain/data/image.h"
#include "ftrain/data/pair_set.h"
#include "ftrain/plugin.h"

namespace {

namespace portraits = ftrain::portraits;

constexpr int quality = 95;
constexpr std::int64_t folds = 10;

void bind_size(ftrain::Keys& keys, std::int64_t& size) {
  keys.bind("size", size, "width and height of an image in pixels", ftrain::between(32, 512));
}

std::vector<std::uint8_t> portrait(std::uint64_t seed, std::uint64_t identity, std::uint64_t sample,
                                   std::int64_t size) {
  ftrain::Image image;
  portraits::render(portraits::identity_of(seed, identity),
                    portraits::shot_of(seed, identity, sample), static_cast<int>(size), image);
  return ftrain::encode_jpeg(image, quality);
}

class Portraits : public ftrain::Dataset {
 public:
  void configure(ftrain::Keys& keys) override {
    keys.bind("identities", identities_, "the number of people", ftrain::between(1, 1e9));
    keys.bind("samples", samples_, "images of each of them", ftrain::between(1, 1e6));
    bind_size(keys, size_);
  }

  void open(std::uint64_t seed) override { seed_ = seed; }
  std::int64_t size() const override { return identities_ * samples_; }
  std::int64_t classes() const override { return identities_; }

  void read(std::int64_t index, ftrain::Sample& sample) const override {
    sample.label = index / samples_;
    sample.bytes = portrait(seed_, static_cast<std::uint64_t>(sample.label),
                            static_cast<std::uint64_t>(index % samples_), size_);
  }

  std::string describe_sample(std::int64_t index) const override {
    return "portrait " + std::to_string(index % samples_) + " of identity " +
           std::to_string(index / samples_);
  }

  std::string summary() const override {
    return "portraits: " + std::to_string(size()) + " rendered images of " +
           std::to_string(identities_) + " identities, " + std::to_string(size_) + " pixels";
  }

 private:
  std::int64_t identities_ = 400, samples_ = 20, size_ = 112;
  std::uint64_t seed_ = 0;
};

// As in the protocol of LFW: ten folds of disjoint people, each of pairs of one person and then as
// many of two. Every image occurs in one pair only.
class PortraitPairs : public ftrain::PairSet {
 public:
  void configure(ftrain::Keys& keys) override {
    keys.bind("identities", identities_, "the number of people, none of them in the training data",
              ftrain::between(2 * folds, 1e9));
    keys.bind("pairs", pair_count_, "pairs of images, half of them of one person; a multiple of 20",
              ftrain::between(2 * folds, 1e7));
    keys.expect(pair_count_ % (2 * folds) == 0, "pairs",
                "pairs must be a multiple of 20: ten folds, each with as many pairs of one person "
                "as of two");
    bind_size(keys, size_);
  }

  void open(const std::filesystem::path&, std::uint64_t seed) override {
    seed_ = seed;
    pairs_.clear();
    images_.clear();
    const std::int64_t half = pair_count_ / (2 * folds);
    for (std::int64_t fold = 0; fold < folds; ++fold) {
      const std::int64_t first = identities_ * fold / folds;
      const std::int64_t count = identities_ * (fold + 1) / folds - first;
      std::vector<std::int64_t> taken(static_cast<std::size_t>(count));  // images of each so far
      const auto take = [&](std::int64_t person) {
        images_.push_back({static_cast<std::uint64_t>(first + person),
                           static_cast<std::uint64_t>(taken[static_cast<std::size_t>(person)]++)});
        return static_cast<std::int64_t>(images_.size()) - 1;
      };
      const auto add = [&](std::int64_t one, std::int64_t other) {
        const std::int64_t a = take(one), b = take(other);
        pairs_.push_back({a, b, one == other});
      };
      for (std::int64_t i = 0; i < half; ++i) add(i % count, i % count);
      for (std::int64_t i = 0; i < half; ++i) {
        const auto random =
            ftrain::Philox::at(seed, stream, static_cast<std::uint64_t>(fold * half + i));
        const auto away = random.bits64(0) % static_cast<std::uint64_t>(count - 1);
        add(i % count, (i + 1 + static_cast<std::int64_t>(away)) % count);
      }
    }
  }

  std::int64_t images() const override { return static_cast<std::int64_t>(images_.size()); }
  std::vector<std::uint8_t> image(std::int64_t index) const override {
    const auto& [person, sample] = images_[static_cast<std::size_t>(index)];
    return portrait(seed_, portraits::held_out + person, sample, size_);
  }
  const std::vector<ftrain::Pair>& pairs() const override { return pairs_; }
  std::string describe_image(std::int64_t index) const override {
    const auto& [person, sample] = images_[static_cast<std::size_t>(index)];
    return "portrait " + std::to_string(sample) + " of held-out identity " + std::to_string(person);
  }

 private:
  static constexpr std::uint64_t stream = 0x70616972;  // of the second people of pairs

  std::int64_t identities_ = 100, pair_count_ = 600, size_ = 112;
  std::uint64_t seed_ = 0;
  std::vector<std::array<std::uint64_t, 2>> images_;  // held-out person, sample
  std::vector<ftrain::Pair> pairs_;
};

}  // namespace

FTRAIN_PLUGIN(portraits, registry) {
  registry.add<ftrain::Dataset, Portraits>("portraits", "rendered faces of invented people");
  registry.add<ftrain::PairSet, PortraitPairs>("portraits",
                                               "pairs of rendered faces of unseen people");
}
