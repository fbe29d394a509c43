#include "core/data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <stdexcept>

#include "ftrain/base/error.h"
#include "ftrain/data/image.h"

namespace ftrain {
namespace {

using ::testing::HasSubstr;

constexpr int side = 4;
constexpr std::size_t image_bytes = side * side * 3;

// Image i is plainly of colour i, with label i % 5; the images in `bad` are no images.
class Plain : public Dataset {
 public:
  explicit Plain(std::int64_t size, std::set<std::int64_t> bad = {})
      : size_(size), bad_(std::move(bad)) {}
  void open(std::uint64_t) override {}
  std::int64_t size() const override { return size_; }
  std::int64_t classes() const override { return classes_; }
  void read(std::int64_t index, Sample& sample) const override {
    ++reads;
    if (bad_.contains(index)) {
      sample.bytes = {1, 2, 3, 4};
    } else {
      const auto colour = static_cast<std::uint8_t>(index);
      sample.bytes = encode_ppm({side, side, std::vector<std::uint8_t>(image_bytes, colour)});
    }
    sample.label = index % 5;
  }
  std::string describe_sample(std::int64_t index) const override {
    return "plain record " + std::to_string(index);
  }
  std::string summary() const override { return "plain"; }

  mutable std::atomic<std::int64_t> reads = 0;
  std::int64_t classes_ = 5;

 private:
  std::int64_t size_;
  std::set<std::int64_t> bad_;
};

LoaderOptions options(std::int64_t batch) {
  LoaderOptions result;
  result.batch = batch;
  result.image_size = side;
  result.threads = 2;
  result.seed = 11;
  return result;
}

// The colours and labels of the batches of a run, in order.
std::vector<std::int64_t> run(const Dataset& dataset, const LoaderOptions& how) {
  Loader loader(dataset, how);
  std::vector<std::int64_t> result;
  for (std::int64_t step = how.first_step; step < how.last_step; ++step) {
    const Batch& batch = loader.next();
    EXPECT_EQ(batch.step, step);
    EXPECT_EQ(batch.epoch, loader.sampler().epoch_of(step));
    EXPECT_EQ(batch.images.size(), static_cast<std::size_t>(how.batch) * image_bytes);
    EXPECT_EQ(batch.labels.size(), static_cast<std::size_t>(how.batch));
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      const auto begin = batch.images.begin() + static_cast<long>(i * image_bytes);
      EXPECT_EQ(std::count(begin, begin + static_cast<long>(image_bytes), *begin),
                static_cast<long>(image_bytes));
      EXPECT_EQ(batch.labels[i], *begin % 5);
      result.push_back(*begin);
    }
    loader.release();
  }
  return result;
}

std::vector<std::int64_t> expected(std::int64_t size, const LoaderOptions& how) {
  const Sampler sampler(size, how.batch * how.ranks, how.shuffle, how.seed);
  std::vector<std::int64_t> result;
  for (std::int64_t step = how.first_step; step < how.last_step; ++step)
    for (std::int64_t i = 0; i < how.batch; ++i)
      result.push_back(sampler.index_at(step, how.rank * how.batch + i));
  return result;
}

TEST(Loader, FollowsTheSamplerForAnyThreadsAndRing) {
  const Plain dataset(100);
  for (const bool shuffle : {true, false})
    for (const int threads : {0, 1, 2, 4})
      for (const int prefetch : {1, 2, 5}) {
        LoaderOptions how = options(8);
        how.shuffle = shuffle;
        how.threads = threads;
        how.prefetch = prefetch;
        how.last_step = 30;
        EXPECT_EQ(run(dataset, how), expected(100, how)) << threads << " " << prefetch;
      }
}

TEST(Loader, BatchesOfAllRanksAreTheGlobalBatch) {
  const Plain dataset(100);
  LoaderOptions whole = options(8);
  whole.last_step = 20;
  const auto global = run(dataset, whole);
  for (const int ranks : {2, 4}) {
    std::vector<std::vector<std::int64_t>> parts;
    LoaderOptions how = options(8 / ranks);
    how.ranks = ranks;
    how.last_step = 20;
    for (how.rank = 0; how.rank < ranks; ++how.rank) parts.push_back(run(dataset, how));
    std::vector<std::int64_t> joined;
    for (std::size_t step = 0; step < 20; ++step)
      for (const auto& part : parts) {
        const auto begin = part.begin() + static_cast<long>(step) * how.batch;
        joined.insert(joined.end(), begin, begin + how.batch);
      }
    EXPECT_EQ(joined, global) << ranks;
  }
}

TEST(Loader, StartsAtAnyStep) {
  const Plain dataset(100);
  LoaderOptions how = options(8);
  how.last_step = 30;
  const auto whole = run(dataset, how);
  how.first_step = 17;
  const auto rest = run(dataset, how);
  EXPECT_EQ(rest, std::vector<std::int64_t>(whole.begin() + 17 * 8, whole.end()));
}

TEST(Loader, EndsAfterTheLastStep) {
  const Plain dataset(20);
  LoaderOptions how = options(4);
  how.last_step = 2;
  Loader loader(dataset, how);
  loader.next();
  loader.next();  // releases the first
  EXPECT_THROW(loader.next(), std::out_of_range);
  EXPECT_EQ(dataset.reads, 8);
  EXPECT_GE(loader.wait_seconds(), 0);
}

TEST(Loader, ABatchLargerThanTheSetWrapsAround) {
  const Plain dataset(3);
  LoaderOptions how = options(8);
  how.last_step = 4;
  EXPECT_EQ(run(dataset, how), expected(3, how));
}

TEST(Loader, StopsAtACorruptSampleOfItsStep) {
  const Plain dataset(40, {19, 22});
  for (const int threads : {1, 4}) {
    LoaderOptions how = options(8);
    how.shuffle = false;
    how.threads = threads;
    Loader loader(dataset, how);
    EXPECT_EQ(loader.next().labels.front(), 0);
    EXPECT_EQ(loader.next().labels.front(), 8 % 5);
    for (int again = 0; again < 2; ++again) {
      try {
        loader.next();
        FAIL() << "no error";
      } catch (const DataError& error) {
        EXPECT_THAT(error.what(), HasSubstr("plain record 19: "));
        EXPECT_THAT(error.what(), HasSubstr("on_corrupt = \"skip\""));
      }
    }
  }
}

TEST(Loader, SkipsCorruptSamplesAndCounts) {
  const Plain dataset(40, {9, 12, 13, 39});
  for (const int threads : {1, 4}) {
    LoaderOptions how = options(8);
    how.shuffle = false;
    how.threads = threads;
    how.on_corrupt = "skip";
    how.last_step = 10;
    // Each bad one is replaced by the next good one of the order; the last one by the first.
    auto order = expected(40, how);
    for (auto& index : order) {
      if (index == 9) index = 10;
      if (index == 12 || index == 13) index = 14;
      if (index == 39) index = 0;
    }
    EXPECT_EQ(run(dataset, how), order);
    Loader loader(dataset, how);
    EXPECT_EQ(loader.next().skipped, 0);
    EXPECT_EQ(loader.next().skipped, 3);
    for (int step = 2; step < 10; ++step) loader.next();
    EXPECT_EQ(loader.skipped(), 8);  // two epochs
  }
}

TEST(Loader, WarnsOfASkippedRecordOnce) {
  const Plain dataset(8, {3});
  LoaderOptions how = options(8);
  how.on_corrupt = "skip";
  how.last_step = 5;
  ::testing::internal::CaptureStderr();
  run(dataset, how);
  const std::string text = ::testing::internal::GetCapturedStderr();
  const auto first = text.find("plain record 3: ");
  ASSERT_NE(first, std::string::npos) << text;
  EXPECT_EQ(text.find("plain record 3: ", first + 1), std::string::npos) << text;
}

TEST(Loader, SkippingGivesUpWhenNothingIsGood) {
  const Plain dataset(4, {0, 1, 2, 3});
  LoaderOptions how = options(2);
  how.on_corrupt = "skip";
  Loader loader(dataset, how);
  try {
    loader.next();
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("4 samples in a row"));
  }
}

TEST(Loader, RefusesLabelsOutOfRangeEvenWhenSkipping) {
  Plain dataset(10);
  dataset.classes_ = 4;
  LoaderOptions how = options(5);
  how.on_corrupt = "skip";
  how.shuffle = false;
  Loader loader(dataset, how);
  try {
    loader.next();
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("plain record 4: the label 4"));
  }
}

TEST(Loader, EndsAtAnyMoment) {
  const Plain dataset(1000);
  for (int steps = 0; steps < 20; ++steps) {
    LoaderOptions how = options(16);
    how.threads = 4;
    Loader loader(dataset, how);
    for (int step = 0; step < steps % 4; ++step) loader.next();
  }
}

TEST(Loader, ReadsNoFurtherThanItsRing) {
  const Plain dataset(1000);
  LoaderOptions how = options(4);
  how.prefetch = 3;
  {
    Loader loader(dataset, how);
    loader.next();
  }
  EXPECT_LE(dataset.reads, 3 * 4);
}

TEST(Loader, RefusesOptionsThatMakeNoSense) {
  const Plain dataset(10);
  const auto refuses = [&](auto change) {
    LoaderOptions how = options(4);
    change(how);
    EXPECT_THROW(Loader(dataset, how), ConfigError);
  };
  refuses([](LoaderOptions& how) { how.batch = 0; });
  refuses([](LoaderOptions& how) { how.rank = 1; });
  refuses([](LoaderOptions& how) { how.prefetch = 0; });
  refuses([](LoaderOptions& how) { how.threads = -1; });
  refuses([](LoaderOptions& how) { how.on_corrupt = "ignore"; });
  refuses([](LoaderOptions& how) { how.first_step = 3, how.last_step = 2; });
  EXPECT_THROW(Loader(Plain(0), options(4)), DataError);
}

}  // namespace
}  // namespace ftrain
