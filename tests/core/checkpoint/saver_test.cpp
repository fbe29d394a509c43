// Checkpoints written by several ranks (threads of the test) and read on other numbers of them.
#include "core/checkpoint/saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>

#include "core/checkpoint/state.h"
#include "ftrain/base/error.h"
#include "tests/plugins/parallelism/ranks.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

constexpr std::int64_t classes = 11, width = 3;

// A rank's states as plain arrays. Those named "turned..." pretend to lie in an order of their own.
class Memory final : public StateStore {
 public:
  void add(StateSpec spec) {
    values_[spec.name].resize(static_cast<std::size_t>(spec.type.shape.elements()));
    const std::size_t bytes = spec.type.bytes();
    entries_.push_back({std::move(spec), bytes});
  }
  std::vector<float>& values(const std::string& name) { return values_.at(name); }

  const std::vector<Entry>& entries() const override { return entries_; }
  bool has(std::string_view name) const override { return values_.contains(std::string(name)); }
  void read(std::string_view name, void* out) const override {
    if (unreadable) throw DeviceError("the driver does not answer");
    const std::vector<float>& values = values_.at(std::string(name));
    if (!values.empty()) std::memcpy(out, values.data(), values.size() * sizeof(float));
  }
  void write(std::string_view name, const void* in) override {
    std::vector<float>& values = values_.at(std::string(name));
    if (!values.empty()) std::memcpy(values.data(), in, values.size() * sizeof(float));
  }
  bool unreadable = false;

 private:
  std::vector<Entry> entries_;
  std::map<std::string, std::vector<float>> values_;
};

using Role = StateSpec::Role;

StateSpec spec(const std::string& name, Shape shape, Role role = Role::parameter) {
  StateSpec made;
  made.role = role;
  made.name = name;
  made.type = {DType::f32, std::move(shape)};
  if (name.starts_with("turned")) made.type.layout = "own";
  return made;
}

// The states of a rank; split: the class centers by rows, the first ranks one more.
std::unique_ptr<Memory> states_of(int rank, int ranks, bool split, std::int64_t count = classes) {
  auto store = std::make_unique<Memory>();
  store->add(spec("conv.weight", {40, 5}));
  store->add(spec("conv.weight.momentum", {40, 5}, Role::slot));
  store->add(spec("turned.weight", {30, 6}));
  store->add(spec("norm.weight", {40}));
  store->add(spec("norm.running_mean", {40}, Role::statistic));
  const std::int64_t each = split ? count / ranks : count, more = split ? count % ranks : 0;
  for (const char* name : {"centers.weight", "centers.weight.momentum"}) {
    StateSpec centers = spec(name, {each + (rank < more ? 1 : 0), width});
    centers.first_row = split ? each * rank + std::min<std::int64_t>(rank, more) : 0;
    centers.rows = count;
    store->add(centers);
  }
  return store;
}

// Every logical element's own number. Statistics differ between ranks.
void fill(Memory& store, int rank, float offset = 0) {
  float start = offset;
  for (const auto& entry : store.entries()) {
    start += 10000;
    std::vector<float>& values = store.values(entry.spec.name);
    const std::int64_t before = entry.spec.rows > 0 ? entry.spec.first_row * width : 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = start + static_cast<float>(before) + static_cast<float>(i);
      if (entry.spec.role == Role::statistic) values[i] += 0.125f * static_cast<float>(rank);
    }
  }
}

class CheckpointSaverTest : public testing::Test {
 protected:
  fs::path folder_ = fs::path(testing::TempDir()) /
                     ("checkpoint_saver_" + std::to_string(::getpid())) / "checkpoints";
  void SetUp() override { fs::remove_all(folder_.parent_path()); }
  void TearDown() override { fs::remove_all(folder_.parent_path()); }

  // On every rank: states, a saver on them, and what the test does with the two.
  struct Rank {
    Memory& store;
    CheckpointSaver& saver;
    Communicator* communicator;
    int rank;
  };
  template <class Work>
  void on(int ranks, bool split, bool asynchronous, const Work& work) const {
    on_ranks(ranks, [&](int rank, Communicator* communicator) {
      const auto store = states_of(rank, ranks, split);
      fill(*store, rank);
      CheckpointSaver saver(folder_, "faces", *store, communicator, asynchronous);
      work(Rank{*store, saver, communicator, rank});
    });
  }
  fs::path save(int ranks, std::int64_t step, bool split = true, bool asynchronous = true) const {
    fs::path saved;
    on(ranks, split, asynchronous, [&](const Rank& r) {
      r.saver.begin(step, {{"cursor", "17"}});
      EXPECT_TRUE(r.saver.pending());
      EXPECT_EQ(r.saver.step(), step);
      const fs::path path = r.saver.finish();
      EXPECT_FALSE(r.saver.pending());
      if (r.rank == 0) saved = path;
    });
    return saved;
  }
  // What every rank of that number reads is what rank 0 would have filled in.
  void expect_read(const fs::path& path, int ranks, bool split) const {
    for (int rank = 0; rank < ranks; ++rank) {
      SCOPED_TRACE("rank " + std::to_string(rank) + " of " + std::to_string(ranks));
      CheckpointReader reader(path);
      const auto got = states_of(rank, ranks, split), want = states_of(rank, ranks, split);
      restore(*got, reader);
      fill(*want, 0);
      for (const auto& entry : got->entries()) {
        EXPECT_EQ(got->values(entry.spec.name), want->values(entry.spec.name)) << entry.spec.name;
      }
    }
  }
  std::vector<std::string> listing(const fs::path& folder) const {
    std::vector<std::string> names;
    if (!fs::exists(folder)) return names;
    for (const auto& entry : fs::directory_iterator(folder)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  static std::string content(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

TEST_F(CheckpointSaverTest, FourRanksWriteWhatAnyNumberReads) {
  for (const bool asynchronous : {true, false}) {
    for (const bool split : {true, false}) {
      SCOPED_TRACE(std::to_string(asynchronous) + " " + std::to_string(split));
      const fs::path path = save(4, 12, split, asynchronous);
      EXPECT_EQ(path, folder_ / "step-00000012");
      EXPECT_THAT(listing(folder_), ElementsAre("step-00000012"));
      CheckpointReader reader(path);
      EXPECT_EQ(reader.step(), 12);
      EXPECT_EQ(reader.job(), "faces");
      EXPECT_EQ(reader.extra().at("cursor"), "17");
      for (const int ranks : {1, 3, 4, 5}) {
        expect_read(path, ranks, true);
        expect_read(path, ranks, false);
      }
    }
  }
}

TEST_F(CheckpointSaverTest, OneRankWritesTheSameBytesEachTime) {
  const fs::path path = save(1, 3);
  EXPECT_THAT(listing(path),
              ElementsAre("manifest.json", "rank-0.safetensors", "rows-0.safetensors"));
  std::map<std::string, std::string> before;
  for (const std::string& name : listing(path)) before[name] = content(path / name);
  EXPECT_TRUE(CheckpointReader(path).has("centers.weight"));
  fs::remove_all(path);
  save(1, 3, true, false);
  for (const auto& [name, bytes] : before) EXPECT_EQ(content(path / name), bytes) << name;
  expect_read(path, 2, true);
}

TEST_F(CheckpointSaverTest, WhatChangesAfterBeginIsNotInTheFile) {
  fs::path path;
  on(3, true, true, [&](const Rank& r) {
    r.saver.begin(5, {});
    fill(r.store, r.rank, 0.5f);  // the training goes on
    const fs::path saved = r.saver.finish();
    if (r.rank == 0) path = saved;
  });
  expect_read(path, 3, true);
}

TEST_F(CheckpointSaverTest, IsReadyWithoutBeingWaitedFor) {
  on(2, true, true, [&](const Rank& r) {
    r.saver.begin(1, {});
    while (!r.saver.ready()) std::this_thread::yield();
    // Not before all ranks are through is the checkpoint there for readers.
    EXPECT_THAT(list_checkpoints(folder_), IsEmpty());
    r.communicator->barrier();
    r.saver.finish();
    r.saver.begin(2, {});
    r.saver.finish();
  });
  EXPECT_THAT(listing(folder_), ElementsAre("step-00000001", "step-00000002"));
}

TEST_F(CheckpointSaverTest, RanksWriteEquallyMuch) {
  for (const bool split : {true, false}) {
    const fs::path path = save(2, 1, split);
    std::size_t sum = 0;
    for (int rank = 0; rank < 2; ++rank) {
      const auto store = states_of(rank, 2, split);
      const std::size_t copy = CheckpointSaver::copy_bytes(*store, rank, 2, true);
      EXPECT_EQ(CheckpointSaver::copy_bytes(*store, rank, 2, false), 0u);
      sum += copy;
      std::size_t written = 0;
      for (const char* name : {"rank-", "rows-"}) {
        const SafetensorsFile file(path / (name + std::to_string(rank) + ".safetensors"));
        for (const TensorView& view : file.tensors()) written += view.bytes();
      }
      EXPECT_EQ(written, copy);
      // 200 + 200 | 180 + 40 + 40 and half of the 66 of the class centers.
      EXPECT_NEAR(static_cast<double>(copy) / 4, 363, 70);
    }
    const auto whole = states_of(0, 1, true);
    EXPECT_EQ(sum, CheckpointSaver::copy_bytes(*whole, 0, 1, true));
  }
}

TEST_F(CheckpointSaverTest, FewClassesLeaveRanksWithoutRows) {
  for (const bool split : {true, false}) {
    on_ranks(3, [&](int rank, Communicator* communicator) {
      const auto store = states_of(rank, 3, split, 1);
      fill(*store, rank);
      CheckpointSaver saver(folder_, "faces", *store, communicator, true);
      saver.begin(1, {});
      saver.finish();
    });
    CheckpointReader reader(folder_ / "step-00000001");
    const auto got = states_of(0, 1, true, 1), want = states_of(0, 1, true, 1);
    restore(*got, reader);
    fill(*want, 0);
    EXPECT_EQ(got->values("centers.weight"), want->values("centers.weight"));
  }
}

// The loss's scale is saved as what it is; a job that had none gives way to the first one.
TEST_F(CheckpointSaverTest, TheLosssScaleGoesOnOrBegins) {
  StateSpec scale = spec("loss_scale", {}, Role::slot);
  scale.initializer = {Initializer::Kind::constant, 65536};
  for (const bool had_one : {true, false}) {
    const auto store = states_of(0, 1, false);
    if (had_one) store->add(scale);
    fill(*store, 0);
    CheckpointSaver saver(folder_, "faces", *store, nullptr, true);
    saver.begin(1, {});
    CheckpointReader reader(saver.finish());
    const auto got = states_of(0, 1, false);
    got->add(scale);
    restore(*got, reader);
    EXPECT_EQ(got->values("loss_scale")[0], had_one ? store->values("loss_scale")[0] : 65536.0f);
  }
}

// A rank that fails is named; the others only hear of it; nothing is left, nothing old touched.
TEST_F(CheckpointSaverTest, AFailingRankIsNamedAndLeavesNothing) {
  for (const bool asynchronous : {true, false}) {
    save(4, 1);
    std::vector<std::string> own(4), heard(4);
    on(4, true, asynchronous, [&](const Rank& r) {
      const auto i = static_cast<std::size_t>(r.rank);
      r.store.unreadable = r.rank == 2;
      r.saver.begin(2, {});
      try {
        r.saver.finish();
      } catch (const PeerError& error) {
        heard[i] = error.what();
      } catch (const DataError& error) {
        own[i] = error.what();
      }
      EXPECT_FALSE(r.saver.pending());
      EXPECT_THAT(listing(folder_), ElementsAre("step-00000001"));
      // The next one is written as if nothing had been.
      r.store.unreadable = false;
      r.communicator->barrier();
      r.saver.begin(3, {});
      r.saver.finish();
    });
    const std::string reason = "rank 2: the driver does not answer";
    EXPECT_THAT(own, ElementsAre("", "", reason, ""));
    EXPECT_THAT(heard, ElementsAre(reason, reason, "", reason));
    expect_read(folder_ / "step-00000001", 2, true);
    expect_read(folder_ / "step-00000003", 2, true);
    fs::remove_all(folder_);
  }
}

TEST_F(CheckpointSaverTest, AFullDiskIsToldAndLeavesNothing) {
  save(2, 1);
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old = ::signal(SIGXFSZ, SIG_IGN);
  struct rlimit tight = before;
  tight.rlim_cur = 1000;
  for (const bool asynchronous : {true, false}) {
    std::vector<std::string> told(2);
    on(2, true, asynchronous, [&](const Rank& r) {
      if (r.rank == 0) ::setrlimit(RLIMIT_FSIZE, &tight);
      r.saver.begin(2, {});
      try {
        r.saver.finish();
      } catch (const DataError& error) {
        told[static_cast<std::size_t>(r.rank)] = error.what();
      }
    });
    ::setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_THAT(told[0], StartsWith("rank 0: "));
    EXPECT_THAT(told[0], HasSubstr("rank-0.safetensors: cannot write: File too large"));
    EXPECT_THAT(told[1], HasSubstr("rank-1.safetensors: cannot write: File too large"));
    EXPECT_THAT(listing(folder_), ElementsAre("step-00000001"));
  }
  ::signal(SIGXFSZ, old);
  expect_read(folder_ / "step-00000001", 2, true);
}

TEST_F(CheckpointSaverTest, AFolderThatCannotBeMadeIsToldOnAllRanks) {
  fs::create_directories(folder_.parent_path());
  std::ofstream(folder_) << "a file is in the way";
  std::vector<std::string> own(3), heard(3);
  on(3, true, true, [&](const Rank& r) {
    const auto i = static_cast<std::size_t>(r.rank);
    try {
      r.saver.begin(1, {});
    } catch (const PeerError& error) {
      heard[i] = error.what();
    } catch (const DataError& error) {
      own[i] = error.what();
    }
    EXPECT_FALSE(r.saver.pending());
  });
  EXPECT_THAT(own[0], StartsWith("rank 0: "));
  EXPECT_THAT(own[0], HasSubstr("cannot make the folder"));
  EXPECT_EQ(heard[1], own[0]);
  EXPECT_EQ(heard[2], own[0]);
}

TEST_F(CheckpointSaverTest, WhatIsNotFinishedIsRemoved) {
  save(3, 1);
  on(3, true, true, [&](const Rank& r) { r.saver.begin(2, {}); });
  EXPECT_THAT(listing(folder_), ElementsAre("step-00000001"));
  on(1, true, true, [&](const Rank& r) { r.saver.begin(2, {}); });
  EXPECT_THAT(listing(folder_), ElementsAre("step-00000001"));
}

}  // namespace
}  // namespace ftrain
