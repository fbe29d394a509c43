#include "core/checkpoint/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <numeric>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class CheckpointFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("checkpoint_files_" + std::to_string(::getpid())) / "checkpoints";
    std::filesystem::remove_all(folder_.parent_path());
    std::iota(weights_.begin(), weights_.end(), 0.5f);
  }
  void TearDown() override { std::filesystem::remove_all(folder_.parent_path()); }

  std::vector<TensorView> model() const {
    return {{"backbone.conv1.weight", DType::f32, Shape({25, 40}), weights_.data()}};
  }
  std::vector<TensorView> head() const {
    return {{"head.weight", DType::f32, Shape({10, 100}), weights_.data()},
            {"head.seen", DType::i64, Shape({2}), seen_.data()}};
  }
  std::filesystem::path save(std::int64_t step, const CheckpointExtra& extra = {}) const {
    CheckpointWriter writer(folder_, step, "quickstart");
    writer.add_shard("model", model());
    writer.add_shard("head", head());
    return writer.commit(extra);
  }
  // Names in the folder, hidden ones too, sorted.
  std::vector<std::string> listing() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  static void flip_byte(const std::filesystem::path& file, std::int64_t from_end) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(-from_end, std::ios::end);
    const char old = static_cast<char>(stream.get());
    stream.seekp(-from_end, std::ios::end);
    stream.put(static_cast<char>(old ^ 1));
  }
  template <class F>
  static std::string error_of(F&& action) {
    try {
      action();
    } catch (const DataError& error) {
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path folder_;
  std::vector<float> weights_ = std::vector<float>(1000);
  std::vector<std::int64_t> seen_{5'000'000'000, -1};
};

TEST_F(CheckpointFilesTest, what_is_written_is_read) {
  const auto path = save(1000, {{"cursor", "17"}, {"note", "a \"b\"\n\u00fc"}});
  EXPECT_EQ(path, folder_ / "step-00001000");
  EXPECT_THAT(listing(), ElementsAre("step-00001000"));
  CheckpointReader reader(path);
  EXPECT_EQ(reader.step(), 1000);
  EXPECT_EQ(reader.job(), "quickstart");
  EXPECT_EQ(reader.extra().at("cursor"), "17");
  EXPECT_EQ(reader.extra().at("note"), "a \"b\"\n\u00fc");
  EXPECT_THAT(reader.names(), ElementsAre("backbone.conv1.weight", "head.seen", "head.weight"));
  std::vector<float> weights(1000);
  reader.read("head.weight", DType::f32, Shape({10, 100}), weights.data());
  EXPECT_EQ(weights, weights_);
  std::vector<std::int64_t> seen(2);
  reader.read("head.seen", DType::i64, Shape({2}), seen.data());
  EXPECT_EQ(seen, seen_);
  EXPECT_EQ(reader.view("backbone.conv1.weight").shape, Shape({25, 40}));
  EXPECT_NO_THROW(reader.verify());
}

TEST_F(CheckpointFilesTest, a_tensor_of_another_kind_is_refused) {
  CheckpointReader reader(save(1));
  std::vector<float> weights(1000);
  EXPECT_THAT(error_of([&] {
                reader.read("head.weight", DType::f32, Shape({100, 10}), weights.data());
              }),
              HasSubstr("tensor 'head.weight' is F32[10, 100], this job needs F32[100, 10]"));
  EXPECT_THAT(error_of([&] { reader.view("head.wieght"); }),
              HasSubstr("Did you mean 'head.weight'"));
}

TEST_F(CheckpointFilesTest, a_changed_byte_names_the_shard) {
  const auto path = save(1000);
  flip_byte(path / "head.safetensors", 9);
  CheckpointReader reader(path);
  EXPECT_NO_THROW(reader.view("backbone.conv1.weight"));
  EXPECT_THAT(error_of([&] { reader.view("head.weight"); }),
              HasSubstr("step-00001000/head.safetensors: this shard is damaged"));
  EXPECT_THAT(error_of([&] { reader.verify(); }), HasSubstr("head.safetensors"));
}

TEST_F(CheckpointFilesTest, a_cut_or_missing_shard_is_named_at_once) {
  const auto cut = save(1), missing = save(2);
  std::filesystem::resize_file(cut / "model.safetensors", 100);
  std::filesystem::remove(missing / "model.safetensors");
  EXPECT_THAT(error_of([&] { CheckpointReader reader(cut); }),
              HasSubstr("model.safetensors: this shard is damaged: it has 100 bytes"));
  EXPECT_THAT(error_of([&] { CheckpointReader reader(missing); }),
              HasSubstr("model.safetensors: this shard is missing"));
}

TEST_F(CheckpointFilesTest, no_change_of_the_manifest_goes_unnoticed) {
  const auto path = save(7, {{"cursor", "17"}});
  std::string text;
  std::getline(std::ifstream(path / "manifest.json"), text, '\0');
  int unnoticed = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::string damaged = text;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    std::ofstream(path / "manifest.json", std::ios::binary) << damaged;
    unnoticed += error_of([&] { CheckpointReader reader(path); }) == "no error";
  }
  EXPECT_EQ(unnoticed, 0);
}

TEST_F(CheckpointFilesTest, the_latest_sound_one_is_found_and_the_others_are_told) {
  EXPECT_FALSE(latest_checkpoint(folder_).has_value()) << "there is no such folder yet";
  save(100);
  save(2000);
  std::filesystem::remove(save(30000) / "manifest.json");
  std::filesystem::create_directories(folder_ / "step-nonsense");
  std::vector<std::string> refused;
  const auto latest = latest_checkpoint(folder_, &refused);
  ASSERT_TRUE(latest.has_value());
  EXPECT_EQ(latest->step, 2000);
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_THAT(refused[0], HasSubstr("step-00030000/manifest.json: cannot open"));
  EXPECT_EQ(list_checkpoints(folder_).size(), 3u);
}

TEST_F(CheckpointFilesTest, pruning_keeps_the_last_and_the_best_and_what_is_damaged) {
  for (const std::int64_t step : {1, 2, 3, 4, 5}) save(step);
  std::filesystem::remove(folder_ / "step-00000005" / "model.safetensors");
  const auto removed = prune_checkpoints(folder_, 2, 1);
  EXPECT_THAT(removed, ElementsAre(folder_ / "step-00000002"));
  EXPECT_THAT(listing(),
              ElementsAre("step-00000001", "step-00000003", "step-00000004", "step-00000005"));
  EXPECT_THAT(prune_checkpoints(folder_, 2, 1), IsEmpty());
}

TEST_F(CheckpointFilesTest, the_best_is_remembered) {
  save(1);
  EXPECT_FALSE(best_checkpoint(folder_).has_value());
  mark_best_checkpoint(folder_, {1, 0.875});
  mark_best_checkpoint(folder_, {3, 0.9});
  EXPECT_EQ(best_checkpoint(folder_)->step, 3);
  EXPECT_EQ(best_checkpoint(folder_)->accuracy, 0.9);
  std::ofstream(folder_ / "best.json") << "{";
  EXPECT_THAT(error_of([&] { best_checkpoint(folder_); }), HasSubstr("best.json: is damaged"));
}

TEST_F(CheckpointFilesTest, the_same_step_can_be_saved_again) {
  save(1000, {{"cursor", "1"}});
  const auto path = save(1000, {{"cursor", "2"}});
  EXPECT_EQ(CheckpointReader(path).extra().at("cursor"), "2");
  EXPECT_THAT(listing(), ElementsAre("step-00001000"));
}

TEST_F(CheckpointFilesTest, a_shard_written_by_another_rank_is_taken_in) {
  CheckpointWriter writer(folder_, 5);
  writer.add_shard("model", model());
  const FileSeal seal = write_safetensors(writer.temporary() / "rank1.safetensors", head());
  writer.adopt_shard("rank1", seal);
  CheckpointReader reader(writer.commit());
  EXPECT_TRUE(reader.has("head.seen"));
  EXPECT_NO_THROW(reader.verify());
}

TEST_F(CheckpointFilesTest, a_name_in_two_shards_is_refused) {
  CheckpointWriter writer(folder_, 5);
  writer.add_shard("model", model());
  EXPECT_THAT(error_of([&] { writer.add_shard("again", model()); }),
              HasSubstr("tensor 'backbone.conv1.weight' is both in shard"));
  EXPECT_THAT(error_of([&] { writer.add_shard("model", head()); }), HasSubstr("new plain name"));
  EXPECT_THAT(error_of([&] { writer.add_shard("../model", head()); }), HasSubstr("plain name"));
}

TEST_F(CheckpointFilesTest, a_writer_that_does_not_commit_leaves_nothing) {
  save(1);
  {
    CheckpointWriter writer(folder_, 2);
    writer.add_shard("model", model());
    EXPECT_THAT(listing(), ElementsAre(".step-00000002.tmp", "step-00000001"));
  }
  EXPECT_THAT(listing(), ElementsAre("step-00000001"));
}

TEST_F(CheckpointFilesTest, a_write_that_fails_leaves_nothing_and_touches_nothing) {
  const auto old = save(1, {{"cursor", "1"}});
  // Files may have 3 kB: the first shard of 4 kB fails in the middle, as on a full disk.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit tight = before;
  tight.rlim_cur = 3000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const std::string fresh = error_of([&] { save(2); });
  const std::string again = error_of([&] { save(1, {{"cursor", "2"}}); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  EXPECT_THAT(fresh,
              HasSubstr(".step-00000002.tmp/model.safetensors: cannot write: File too large"));
  EXPECT_THAT(again, HasSubstr("cannot write"));
  EXPECT_THAT(listing(), ElementsAre("step-00000001"));
  CheckpointReader reader(old);
  EXPECT_EQ(reader.extra().at("cursor"), "1");
  EXPECT_NO_THROW(reader.verify());
}

TEST_F(CheckpointFilesTest, a_folder_that_cannot_be_made_is_named) {
  std::filesystem::create_directories(folder_.parent_path());
  std::ofstream(folder_) << "a file is in the way";
  EXPECT_THAT(error_of([&] { save(1); }), HasSubstr("cannot make the folder"));
}

TEST_F(CheckpointFilesTest, what_a_killed_run_left_is_ignored_and_removed) {
  save(1);
  const pid_t child = ::fork();
  if (child == 0) {
    CheckpointWriter writer(folder_, 2);
    writer.add_shard("model", model());
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  std::ofstream(folder_ / "notes.tmp") << "not ours";
  EXPECT_THAT(listing(), ElementsAre(".step-00000002.tmp", "notes.tmp", "step-00000001"));
  EXPECT_EQ(latest_checkpoint(folder_)->step, 1);
  EXPECT_THAT(remove_leftovers(folder_), ElementsAre(folder_ / ".step-00000002.tmp"));
  EXPECT_THAT(listing(), ElementsAre("notes.tmp", "step-00000001"));
}

}  // namespace
}  // namespace ftrain
