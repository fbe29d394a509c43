// Random pixels under uniformly random labels, of any number of classes: for measuring speed and
// memory without data. The same seed gives the same images.
#include <algorithm>
#include <cstring>
#include <optional>

#include "ftrain/base/philox.h"
#include "ftrain/data/dataset.h"
#include "ftrain/data/image.h"
#include "ftrain/plugin.h"

namespace {

// Streams of random numbers.
constexpr std::uint64_t labels = 1, pixels = 2;

class Synthetic : public ftrain::Dataset {
 public:
  void configure(ftrain::Keys& keys) override {
    keys.bind("classes", classes_, "the number of classes; must be given", ftrain::at_least(1));
    keys.expect(classes_.has_value(), "classes",
                "the synthetic data set needs classes, for instance classes = 1000");
    keys.bind("size", size_, "the number of images", ftrain::at_least(1));
    keys.bind("image_size", side_, "width and height of an image in pixels",
              ftrain::between(1, 4096));
  }

  void open(std::uint64_t seed) override {
    seed_ = seed;
    const auto side = static_cast<int>(side_);
    const auto bytes = static_cast<std::size_t>(side) * static_cast<std::size_t>(side) * 3;
    blank_ = ftrain::encode_ppm({side, side, std::vector<std::uint8_t>(bytes)});
    header_ = blank_.size() - bytes;
  }

  std::int64_t size() const override { return size_; }
  std::int64_t classes() const override { return *classes_; }

  void read(std::int64_t index, ftrain::Sample& sample) const override {
    const auto which = static_cast<std::uint64_t>(index);
    sample.label = static_cast<std::int64_t>(ftrain::Philox::at(seed_, labels, which).bits64(0) %
                                             static_cast<std::uint64_t>(*classes_));
    sample.bytes = blank_;
    const std::uint64_t key = ftrain::mix64(seed_, which);
    std::uint64_t block = 0;
    for (std::size_t at = header_; at < sample.bytes.size(); at += 16) {
      const auto random = ftrain::Philox::at(key, pixels, block++);
      std::memcpy(sample.bytes.data() + at, random.word,
                  std::min<std::size_t>(16, sample.bytes.size() - at));
    }
  }

  std::string describe_sample(std::int64_t index) const override {
    return "synthetic image " + std::to_string(index);
  }

  std::string summary() const override {
    return "synthetic: " + std::to_string(size_) + " images of random pixels, " +
           std::to_string(*classes_) + " classes";
  }

 private:
  std::optional<std::int64_t> classes_;
  std::int64_t size_ = 1000000, side_ = 112;
  std::uint64_t seed_ = 0;
  std::vector<std::uint8_t> blank_;  // an image of zeros
  std::size_t header_ = 0;           // bytes before its pixels
};

}  // namespace

FTRAIN_PLUGIN(synthetic, registry) {
  registry.add<ftrain::Dataset, Synthetic>("synthetic", "random pixels and random labels");
}
