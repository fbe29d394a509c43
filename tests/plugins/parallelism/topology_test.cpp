// Checkpoints belong to the job: what four ranks save, any number continues in any parallelism.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <mutex>
#include <stdexcept>

#include "core/train/trainer.h"
#include "tests/plugins/parallelism/ranks.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;

constexpr int global_batch = 12;

std::string job_text(const std::string& parallelism, int ranks, const fs::path& folder) {
  return R"(
name = "small"
[device]
plugin = "cpu"
threads = 1
autotune = false
[backbone]
plugin = "mobilefacenet"
scale = 1
embedding = 16
blocks = [1, 1, 1, 1]
[head]
plugin = "cosface"
scale = 8.0
margin = 0.2
[parallelism]
batch_norm = "global"
plugin = ")" +
         parallelism + (parallelism == "partial_fc" ? "\"\nsample_rate = 1.0" : "\"") + R"(
[optimizer]
plugin = "sgd"
rate = 0.01
clip = 0.2
[schedule]
plugin = "cosine"
[dataset]
plugin = "synthetic"
classes = 23
size = 60
flip = 0.5
image_size = 48
threads = 1
batch = )" +
         std::to_string(global_batch / ranks) + R"(
[checkpoint]
every = 1
[run]
steps = 9
folder = ")" +
         folder.string() + R"("
[observers]
use = []
)";
}

struct Topology {
  std::string parallelism;
  int ranks = 1;
};

using States = std::map<std::string, std::vector<float>>;

struct Outcome {
  std::vector<double> loss;
  States states;  // of the first rank; what is split over ranks, of all
};

class TopologyTest : public testing::Test {
 protected:
  fs::path folder_ =
      fs::path(testing::TempDir()) / ("ftrain-topology-" + std::to_string(::getpid()));
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  // `fail_at`: every rank is stopped in the middle of things after that step.
  Outcome train(const Topology& topology, const std::string& name,
                const std::vector<std::string>& sets = {}, std::int64_t fail_at = 0) const {
    const int ranks = topology.ranks;
    const std::string text = job_text(topology.parallelism, ranks, folder_ / name);
    std::vector<std::unique_ptr<Job>> jobs;
    for (int rank = 0; rank < ranks; ++rank) {
      jobs.push_back(std::make_unique<Job>(Job::parse(text, "job.toml", sets)));
    }
    std::vector<std::unique_ptr<Trainer>> trainers(static_cast<std::size_t>(ranks));
    Outcome outcome;
    std::mutex registry_mutex;
    on_ranks(ranks, [&](int rank, Communicator* communicator) {
      std::unique_ptr<Trainer>& trainer = trainers[static_cast<std::size_t>(rank)];
      {
        const std::lock_guard lock(registry_mutex);
        trainer = std::make_unique<Trainer>(*jobs[static_cast<std::size_t>(rank)], plugins(),
                                            TrainerOptions{.communicator = communicator});
      }
      trainer->after_step = [&, rank](const StepReport& report) {
        if (rank == 0) outcome.loss.push_back(report.loss);
        if (report.step == fail_at) throw std::runtime_error("stopped");
      };
      trainer->run();
    });
    for (const auto& trainer : trainers) collect(trainer->states(), outcome.states);
    return outcome;
  }

 private:
  static void collect(const StateStore& store, States& states) {
    for (const StateStore::Entry& entry : store.entries()) {
      const StateSpec& spec = entry.spec;
      const Shape& shape = spec.type.shape;
      const std::vector<float> values = read_floats(store, spec);
      std::vector<float>& whole = states[spec.name];
      if (spec.rows == 0) {
        if (whole.empty()) whole = values;
        EXPECT_EQ(whole, values) << spec.name << " differs between ranks";
      } else {
        const std::int64_t width = shape.rank() > 1 ? shape[1] : 1;
        whole.resize(static_cast<std::size_t>(spec.rows * width));
        std::copy(values.begin(), values.end(), whole.begin() + spec.first_row * width);
      }
    }
  }
};

// Means that are zero but for rounding have no relative difference.
void expect_near(const std::vector<float>& a, const std::vector<float>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  double square = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    square += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  EXPECT_LT(std::sqrt(square), tolerance * std::sqrt(size) + 1e-5);
}

TEST_F(TopologyTest, FourRanksThenOneThenThreeFollowOneRun) {
  const Outcome whole = train({"data_parallel", 1}, "whole");
  ASSERT_EQ(whole.loss.size(), 9u);
  std::vector<double> loss;
  States last;
  const Topology legs[] = {{"model_parallel", 4}, {"data_parallel", 1}, {"partial_fc", 3}};
  std::int64_t stop = 0;
  for (const Topology& leg : legs) {
    SCOPED_TRACE(leg.parallelism + " on " + std::to_string(leg.ranks));
    if (stop > 0) {
      // Before a step is made, the states are bit by bit what the others saved.
      const Outcome loaded = train(leg, "legs", {"run.stop_at=" + std::to_string(stop)});
      EXPECT_TRUE(loaded.loss.empty());
      EXPECT_EQ(loaded.states, last);
    }
    stop += 3;
    const Outcome run = train(leg, "legs", {"run.stop_at=" + std::to_string(stop)});
    ASSERT_EQ(run.loss.size(), 3u);
    loss.insert(loss.end(), run.loss.begin(), run.loss.end());
    last = run.states;
  }
  // The data, the schedule and the momentum went on where they stopped.
  for (std::size_t i = 0; i < 9; ++i) {
    EXPECT_NEAR(loss[i], whole.loss[i], 1e-4 * whole.loss[i]) << "step " << i + 1;
  }
  ASSERT_EQ(last.size(), whole.states.size());
  EXPECT_TRUE(last.contains("centers.weight.momentum"));
  for (const auto& [name, values] : last) {
    SCOPED_TRACE(name);
    // The momentum is of the last steps' gradients, which amplify rounding.
    expect_near(values, whole.states.at(name), name.ends_with(".momentum") ? 2e-2 : 1e-3);
  }
}

// Also while the checkpoint before is being written.
TEST_F(TopologyTest, StoppedRunsContinueToTheSameBits) {
  const Topology topology{"model_parallel", 3};
  const Outcome whole = train(topology, "whole");
  const Outcome at_once = train(topology, "at_once", {"checkpoint.asynchronous=false"});
  EXPECT_EQ(at_once.loss, whole.loss);
  EXPECT_EQ(at_once.states, whole.states);

  EXPECT_THROW(train(topology, "parts", {}, 4), std::exception);
  EXPECT_THROW(train(topology, "parts", {}, 7), std::exception);
  for (const auto& entry : fs::directory_iterator(folder_ / "parts" / "checkpoints")) {
    EXPECT_NE(entry.path().filename().string().front(), '.') << "left behind";
  }
  const Outcome rest = train(topology, "parts");
  ASSERT_LT(rest.loss.size(), 9u);
  EXPECT_TRUE(std::equal(rest.loss.rbegin(), rest.loss.rend(), whole.loss.rbegin()));
  EXPECT_EQ(rest.states, whole.states);
}

// What is stored in bf16 is saved in bf16, and goes on on other ranks to the bit.
TEST_F(TopologyTest, ClassCentersInBf16GoOnOnAnyNumberOfRanks) {
  const std::string bf16 = "parallelism.centers=bf16";
  const Topology topology{"model_parallel", 3};
  const Outcome whole = train(topology, "whole", {bf16});
  EXPECT_THROW(train(topology, "parts", {bf16}, 5), std::exception);
  const Outcome rest = train(topology, "parts", {bf16});
  ASSERT_LT(rest.loss.size(), 9u);
  EXPECT_EQ(rest.states, whole.states);
  for (const Topology& other : {Topology{"data_parallel", 1}, Topology{"partial_fc", 4}}) {
    EXPECT_EQ(train(other, "whole", {bf16}).states, whole.states);
  }
}

TEST_F(TopologyTest, RunsGoOnInBf16AndBack) {
  const Topology topology{"partial_fc", 2};
  const std::string stop = "run.stop_at=3", bf16 = "parallelism.centers=bf16";
  States want = train(topology, "run", {stop}).states;
  EXPECT_EQ(train(topology, "run", {stop, "parallelism.centers_memory=host"}).states, want);
  for (const char* name : {"centers.weight", "centers.weight.momentum"}) {
    for (float& x : want.at(name)) x = to_f32(to_bf16(x));
  }
  EXPECT_EQ(train(topology, "run", {stop, bf16}).states, want);
  const States later = train(topology, "run", {"run.stop_at=4", bf16}).states;
  EXPECT_EQ(train(topology, "run", {"run.stop_at=4"}).states, later);
}

// AdamW's means and the number of each class center's updates.
TEST_F(TopologyTest, CountedRowsGoOnOnAnyNumberOfRanks) {
  const std::vector<std::string> adamw{"optimizer.plugin=adamw", "optimizer.center_steps=row",
                                       "parallelism.sample_rate=0.2"};
  const auto until = [&](std::int64_t stop) {
    std::vector<std::string> sets = adamw;
    sets.push_back("run.stop_at=" + std::to_string(stop));
    return sets;
  };
  const Topology topology{"partial_fc", 3};
  const Outcome whole = train(topology, "whole", adamw);
  const States half = train(topology, "parts", until(5)).states;
  const std::vector<float>& counts = half.at("centers.weight.step");
  EXPECT_EQ(counts.size(), 23u);
  EXPECT_NE(*std::min_element(counts.begin(), counts.end()),
            *std::max_element(counts.begin(), counts.end()));
  for (const Topology& other : {Topology{"partial_fc", 1}, Topology{"partial_fc", 4}}) {
    EXPECT_EQ(train(other, "parts", until(5)).states, half);
  }
  const Outcome rest = train(topology, "parts", adamw);
  ASSERT_EQ(rest.loss.size(), 4u);
  EXPECT_EQ(rest.states, whole.states);
}

// A velocity that no step wants is not asked for.
TEST_F(TopologyTest, RunsGoOnWithoutMomentum) {
  const Topology topology{"model_parallel", 2};
  States want = train(topology, "run", {"run.stop_at=3"}).states;
  const States got = train(topology, "run", {"run.stop_at=3", "optimizer.momentum=0"}).states;
  std::erase_if(want, [](const auto& state) { return state.first.ends_with(".momentum"); });
  EXPECT_EQ(got, want);
}

}  // namespace
}  // namespace ftrain
