// A label that no class center answers to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "core/train/trainer.h"
#include "tests/plugins/parallelism/steps.h"

namespace ftrain {
namespace {

// 64 grey images of 7 classes, of which one says that it is of another.
struct Mislabelled final : Dataset {
  void configure(Keys&) override {}
  void open(std::uint64_t) override {}
  std::int64_t size() const override { return 64; }
  std::int64_t classes() const override { return 7; }
  void read(std::int64_t index, Sample& sample) const override {
    const std::string header = "P6 8 8 255\n";
    sample.bytes.assign(header.begin(), header.end());
    sample.bytes.resize(header.size() + 8 * 8 * 3, static_cast<std::uint8_t>(index));
    sample.label = index == 13 ? 99 : index % 7;
  }
  std::string describe_sample(std::int64_t index) const override {
    return "faces record " + std::to_string(index);
  }
  std::string summary() const override { return "64 images"; }
};

TEST(Labels, OutsideEveryShardAreNamedAtOnce) {
  tiny_plugins().add<Dataset, Mislabelled>("mislabelled", "of a test");
  const auto folder =
      std::filesystem::temp_directory_path() / ("ftrain-labels-" + std::to_string(getpid()));
  TinyJob tiny{.ranks = 2, .parts = 2, .batch = 4};
  std::string text = tiny.text();
  const std::string synthetic = "plugin = \"synthetic\"\nclasses = 1000";
  text.replace(text.find(synthetic), synthetic.size(), "plugin = \"mislabelled\"\nshuffle = false");
  const std::string steps = "steps = 1";
  text.replace(text.find(steps), steps.size(), "steps = 2\nfolder = \"" + folder.string() + "\"");

  // Ranks 0 and 1 take samples 0 to 7 and 8 to 15 of the first step: rank 1 has the wrong one.
  const Job jobs[] = {Job::parse(text), Job::parse(text)};
  std::string said[2];
  std::mutex mutex;
  EXPECT_THROW(on_ranks(2,
                        [&](int rank, Communicator* communicator) {
                          std::unique_ptr<Trainer> trainer;
                          {
                            const std::lock_guard lock(mutex);
                            trainer = std::make_unique<Trainer>(
                                jobs[rank], tiny_plugins(),
                                TrainerOptions{.communicator = communicator});
                          }
                          try {
                            trainer->run();
                          } catch (const Error& error) {
                            said[rank] = error.what();
                            throw;
                          }
                        }),
               Error);
  std::filesystem::remove_all(folder);
  // Processes put the rank's name before it.
  EXPECT_EQ(said[1].find("faces record 13: the label 99 is not below the number of classes, 7"), 0u)
      << said[1];
  // The others hear of it.
  EXPECT_THAT(said[0], testing::HasSubstr("another rank failed"));
  EXPECT_THAT(said[0], testing::HasSubstr(said[1]));
}

}  // namespace
}  // namespace ftrain
