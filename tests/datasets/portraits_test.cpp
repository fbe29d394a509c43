#include <gtest/gtest.h>

#include <set>

#include "ftrain/config/table.h"
#include "ftrain/data/dataset.h"
#include "ftrain/data/image.h"
#include "ftrain/data/pair_set.h"
#include "ftrain/plugin/registry.h"

namespace {

using ftrain::Job;
using ftrain::Pair;
using Bytes = std::vector<std::uint8_t>;

ftrain::Registry& registry() {
  static ftrain::Registry plugins({FTRAIN_PLUGINS});
  return plugins;
}

std::unique_ptr<ftrain::Dataset> dataset(const std::string& keys, std::uint64_t seed = 1) {
  const Job job = Job::parse("[dataset]\nplugin = 'portraits'\n" + keys);
  auto data =
      registry().create<ftrain::Dataset>("portraits", job.root().table("dataset"), {"plugin"});
  data->open(seed);
  return data;
}

std::unique_ptr<ftrain::PairSet> pair_set(const std::string& keys, std::uint64_t seed = 1) {
  const Job job = Job::parse("[verify.portraits]\n" + keys);
  auto set = registry().create<ftrain::PairSet>("portraits",
                                                job.root().table("verify").table("portraits"));
  set->open({}, seed);
  return set;
}

Bytes bytes_of(const ftrain::Dataset& data, std::int64_t index) {
  ftrain::Sample sample;
  data.read(index, sample);
  return sample.bytes;
}

// As a key of a std::set.
std::string text_of(const Bytes& bytes) {
  return {bytes.begin(), bytes.end()};
}

ftrain::Image decoded(const Bytes& bytes) {
  ftrain::Image image;
  ftrain::Decoder().decode(bytes, "a portrait", image);
  return image;
}

double distance(const ftrain::Image& a, const ftrain::Image& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) {
    const double d = static_cast<double>(a.pixels[i]) - b.pixels[i];
    sum += d * d;
  }
  return sum / static_cast<double>(a.pixels.size());
}

TEST(Portraits, LabelsCountTheIdentitiesAndImagesHaveTheirSize) {
  for (int size : {32, 112, 200}) {
    const auto data = dataset("identities = 3\nsamples = 4\nsize = " + std::to_string(size));
    ASSERT_EQ(data->size(), 12);
    ASSERT_EQ(data->classes(), 3);
    std::vector<int> seen(3);
    ftrain::Sample sample;
    for (std::int64_t i = 0; i < data->size(); ++i) {
      data->read(i, sample);
      ASSERT_GE(sample.label, 0);
      ASSERT_LT(sample.label, 3);
      ++seen[static_cast<std::size_t>(sample.label)];
      const auto image = decoded(sample.bytes);
      EXPECT_EQ(image.width, size);
      EXPECT_EQ(image.height, size);
    }
    EXPECT_EQ(seen, (std::vector<int>{4, 4, 4}));
  }
}

TEST(Portraits, TheSeedAndTheIndexDecideTheImageInAnyOrder) {
  const auto one = dataset("identities = 5\nsamples = 3");
  const auto two = dataset("identities = 5\nsamples = 3");
  const auto other = dataset("identities = 5\nsamples = 3", 2);
  std::vector<Bytes> forward;
  for (std::int64_t i = 0; i < one->size(); ++i) forward.push_back(bytes_of(*one, i));
  for (std::int64_t i = one->size() - 1; i >= 0; --i) {
    EXPECT_EQ(bytes_of(*two, i), forward[static_cast<std::size_t>(i)]) << one->describe_sample(i);
    EXPECT_NE(bytes_of(*other, i), forward[static_cast<std::size_t>(i)]);
  }
}

TEST(Portraits, MoreIdentitiesLeaveTheFirstOnesAsTheyWere) {
  const auto few = dataset("identities = 2\nsamples = 3");
  const auto many = dataset("identities = 200\nsamples = 3");
  for (std::int64_t i = 0; i < few->size(); ++i) EXPECT_EQ(bytes_of(*few, i), bytes_of(*many, i));
}

// The shots differ visibly, not just by noise, and yet a face is nearer to its own other shots than
// to other people's by more than chance, even in plain pixels.
TEST(Portraits, ShotsOfOneFaceDifferButResembleEachOther) {
  const int people = 60;
  const auto data = dataset("identities = 60\nsamples = 3\nsize = 64");
  std::vector<ftrain::Image> images;
  for (std::int64_t i = 0; i < data->size(); ++i) images.push_back(decoded(bytes_of(*data, i)));
  double own = 0, foreign = 0;
  int own_pairs = 0, foreign_pairs = 0;
  for (std::size_t i = 0; i < images.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const double d = distance(images[i], images[j]);
      if (i / 3 == j / 3) {
        EXPECT_GT(d, 60) << data->describe_sample(static_cast<std::int64_t>(i));
        own += d, ++own_pairs;
      } else {
        foreign += d, ++foreign_pairs;
      }
    }
  }
  ASSERT_EQ(own_pairs, 3 * people);
  EXPECT_LT(own / own_pairs, 0.85 * foreign / foreign_pairs);
}

TEST(PortraitPairs, EveryFoldIsBalancedAndHasPeopleOfItsOwn) {
  const auto set = pair_set("identities = 45\npairs = 120");
  ASSERT_EQ(set->pairs().size(), 120u);
  ASSERT_EQ(set->images(), 240);
  const auto person = [&](std::int64_t image) {
    const std::string text = set->describe_image(image);
    return text.substr(text.rfind(' ') + 1);
  };
  std::set<std::string> before;
  std::set<std::int64_t> used;
  for (std::size_t fold = 0; fold < 10; ++fold) {
    std::set<std::string> here;
    int same = 0;
    for (std::size_t i = 12 * fold; i < 12 * (fold + 1); ++i) {
      const Pair& pair = set->pairs()[i];
      same += pair.same;
      EXPECT_EQ(pair.same, i % 12 < 6) << "pairs of one person come first in a fold";
      EXPECT_EQ(pair.same, person(pair.first) == person(pair.second));
      for (std::int64_t image : {pair.first, pair.second}) {
        EXPECT_TRUE(used.insert(image).second) << "image " << image << " is in two pairs";
        here.insert(person(image));
      }
    }
    EXPECT_EQ(same, 6);
    for (const auto& name : here) EXPECT_EQ(before.count(name), 0u) << name;
    before.insert(here.begin(), here.end());
  }
}

TEST(PortraitPairs, TheSeedDecidesImagesAndPairs) {
  const auto one = pair_set("pairs = 40"), two = pair_set("pairs = 40");
  const auto other = pair_set("pairs = 40", 2);
  std::set<std::string> all;
  for (std::int64_t i = 0; i < one->images(); ++i) {
    EXPECT_EQ(one->image(i), two->image(i));
    EXPECT_NE(one->image(i), other->image(i));
    all.insert(text_of(one->image(i)));
  }
  EXPECT_EQ(all.size(), 80u) << "two images of the set are the same";
  for (std::size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(one->pairs()[i].first, two->pairs()[i].first);
    EXPECT_EQ(one->pairs()[i].second, two->pairs()[i].second);
  }
}

// Images are a function of seed, person and shot: had training and verification a person in common,
// that person's first shots would be the same file.
TEST(PortraitPairs, NobodyIsInTheTrainingData) {
  const auto set = pair_set("identities = 20\npairs = 20\nsize = 64", 3);
  const auto data = dataset("identities = 40\nsamples = 4\nsize = 64", 3);
  std::set<std::string> training;
  for (std::int64_t i = 0; i < data->size(); ++i) training.insert(text_of(bytes_of(*data, i)));
  ASSERT_EQ(training.size(), 160u);
  for (std::int64_t i = 0; i < set->images(); ++i) {
    EXPECT_EQ(training.count(text_of(set->image(i))), 0u) << set->describe_image(i);
  }
}

TEST(PortraitPairs, RefusesAnUnevenNumberOfPairs) {
  try {
    pair_set("pairs = 70");
    FAIL() << "70 pairs make no ten balanced folds";
  } catch (const ftrain::ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("multiple of 20"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("job:2"), std::string::npos) << error.what();
  }
}

}  // namespace
