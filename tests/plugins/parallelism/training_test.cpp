// Whole trainings on several ranks: one loss curve at any number of them, and checkpoints that
// belong to the job and not to the ranks.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <numeric>

#include "core/train/trainer.h"
#include "tests/plugins/parallelism/ranks.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;

// Steps are kept small (clip, image_size): rounding must not grow within ten of them.
constexpr int global_batch = 16;

std::string job_text(int ranks, const fs::path& folder) {
  return R"(
name = "small"
[device]
plugin = "cpu"
threads = 1
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
plugin = "model_parallel"
batch_norm = "global"
[optimizer]
plugin = "sgd"
rate = 0.01
clip = 0.2
[schedule]
plugin = "cosine"
[dataset]
plugin = "synthetic"
classes = 21
size = 64
image_size = 48
threads = 1
batch = )" +
         std::to_string(global_batch / ranks) +
         R"(
[run]
steps = 10
folder = ")" +
         folder.string() + R"("
[observers]
use = []
)";
}

using States = std::map<std::string, std::vector<float>>;

struct Curve {
  std::vector<double> loss, gradient_norm;
  States states;  // of the first rank; class centers of all, by rows
  RunSummary summary;
};

class Training : public testing::Test {
 protected:
  fs::path folder_ = fs::temp_directory_path() / ("ftrain-training-" + std::to_string(getpid()));
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  Curve train(int ranks, const std::string& name, const std::vector<std::string>& sets = {}) {
    std::vector<std::unique_ptr<Job>> jobs;
    std::vector<std::unique_ptr<Trainer>> trainers(static_cast<std::size_t>(ranks));
    for (int rank = 0; rank < ranks; ++rank) {
      jobs.push_back(
          std::make_unique<Job>(Job::parse(job_text(ranks, folder_ / name), "job.toml", sets)));
    }
    Curve run;
    std::mutex plugins_mutex;
    on_ranks(ranks, [&](int rank, Communicator* communicator) {
      const auto r = static_cast<std::size_t>(rank);
      {
        const std::lock_guard lock(plugins_mutex);
        trainers[r] = std::make_unique<Trainer>(*jobs[r], plugins(),
                                                TrainerOptions{.communicator = communicator});
      }
      if (rank == 0) {
        trainers[r]->after_step = [&](const StepReport& report) {
          run.loss.push_back(report.loss);
          run.gradient_norm.push_back(report.gradient_norm);
        };
      }
      trainers[r]->run();
    });
    run.summary = trainers[0]->summary();
    for (const auto& trainer : trainers) collect(trainer->states(), run.states);
    return run;
  }

 private:
  static void collect(const StateStore& store, States& states) {
    for (const StateStore::Entry& entry : store.entries()) {
      const TensorType& type = entry.spec.type;
      std::vector<float> values(static_cast<std::size_t>(type.shape.elements()));
      store.read(entry.spec.name, values.data());
      std::vector<float>& whole = states[entry.spec.name];
      if (entry.spec.rows == 0) {
        if (whole.empty()) whole = values;
        // Statistics may be each rank's own.
        if (entry.spec.role != StateSpec::Role::statistic) {
          EXPECT_EQ(whole, values) << entry.spec.name << " differs between ranks";
        }
        continue;
      }
      whole.resize(static_cast<std::size_t>(entry.spec.rows * type.shape[1]));
      std::copy(values.begin(), values.end(), whole.begin() + entry.spec.first_row * type.shape[1]);
    }
  }
};

void expect_same_curve(const Curve& a, const Curve& b) {
  ASSERT_EQ(a.loss.size(), b.loss.size());
  for (std::size_t i = 0; i < a.loss.size(); ++i) {
    EXPECT_NEAR(a.loss[i], b.loss[i], 1e-4 * b.loss[i]) << "step " << i + 1;
    EXPECT_NEAR(a.gradient_norm[i], b.gradient_norm[i], 1e-2 * b.gradient_norm[i]);
  }
  EXPECT_NEAR(a.gradient_norm[0], b.gradient_norm[0], 1e-4 * b.gradient_norm[0]);
}

void expect_near_states(const States& a, const States& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, values] : a) {
    const auto found = b.find(name);
    ASSERT_NE(found, b.end()) << name;
    ASSERT_EQ(values.size(), found->second.size()) << name;
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      difference += std::pow(static_cast<double>(values[i] - found->second[i]), 2);
      size += std::pow(static_cast<double>(found->second[i]), 2);
    }
    // The momentum is of the last steps' gradients, which amplify rounding.
    const double factor = name.ends_with(".momentum") ? 20 : 1;
    EXPECT_LE(std::sqrt(difference), factor * tolerance * std::sqrt(size) + 1e-5) << name;
  }
}

TEST_F(Training, HasOneCurveOnAnyNumberOfRanksInAnyParallelism) {
  const Curve one = train(1, "one");
  ASSERT_EQ(one.loss.size(), 10u);
  const auto epoch = [&](int n) {
    return std::accumulate(one.loss.begin() + 4 * n, one.loss.begin() + 4 * (n + 1), 0.0);
  };
  EXPECT_LT(epoch(1), epoch(0));
  EXPECT_EQ(one.summary.state, "done");
  for (const char* plugin : {"data_parallel", "model_parallel", "partial_fc"}) {
    for (const int ranks : {1, 2, 4}) {
      SCOPED_TRACE(std::string(plugin) + " on " + std::to_string(ranks) + " ranks");
      std::vector<std::string> sets{"parallelism.plugin=" + std::string(plugin)};
      if (plugin == std::string("partial_fc")) sets.emplace_back("parallelism.sample_rate=1.0");
      const Curve run = train(ranks, plugin + std::to_string(ranks), sets);
      expect_same_curve(run, one);
      expect_near_states(run.states, one.states, 1e-3);
    }
  }
}

// What the comparison is worth: statistics of each rank's own samples give another curve.
TEST_F(Training, HasAnotherCurveWithStatisticsOfARank) {
  const Curve global = train(2, "global");
  const Curve rank = train(2, "rank", {"parallelism.batch_norm=rank"});
  EXPECT_GT(std::abs(rank.loss[5] - global.loss[5]), 1e-3 * global.loss[5]);
}

TEST_F(Training, SamplesTheSameClassesOnAnyNumberOfRanks) {
  const std::vector<std::string> sets{"parallelism.plugin=partial_fc",
                                      "parallelism.sample_rate=0.3", "dataset.flip=0.5"};
  const Curve one = train(1, "one", sets);
  for (const int ranks : {2, 4}) {
    expect_same_curve(train(ranks, "ranks" + std::to_string(ranks), sets), one);
  }
}

TEST_F(Training, KeepsStatisticsOfGroupsWhereverTheyLive) {
  const std::vector<std::string> sets{"parallelism.batch_norm=4"};
  const Curve one = train(1, "one", sets);
  for (const int ranks : {2, 4}) {
    const Curve run = train(ranks, "ranks" + std::to_string(ranks), sets);
    expect_same_curve(run, one);
  }
}

// The loader hands a step's samples out, the graph cuts them into parts, and a checkpoint knows of
// neither.
TEST_F(Training, MakesAStepInPartsOnAnyNumberOfRanks) {
  const auto sets = [](int ranks, int parts) {
    return std::vector<std::string>{"dataset.batch=" + std::to_string(global_batch / ranks / parts),
                                    "run.accumulate=" + std::to_string(parts), "dataset.flip=0.5",
                                    "parallelism.batch_norm=4"};
  };
  const Curve whole = train(1, "whole", sets(1, 1));
  for (const auto& [ranks, parts] : {std::pair{1, 4}, {2, 2}, {4, 1}}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks, " + std::to_string(parts) + " parts");
    const Curve run = train(ranks, "parts" + std::to_string(parts), sets(ranks, parts));
    expect_same_curve(run, whole);
  }
  std::vector<std::string> stopped = sets(2, 2);
  stopped.emplace_back("run.stop_at=5");
  Curve joined = train(2, "moved", stopped);
  const Curve rest = train(1, "moved", sets(1, 2));
  joined.loss.insert(joined.loss.end(), rest.loss.begin(), rest.loss.end());
  joined.gradient_norm.insert(joined.gradient_norm.end(), rest.gradient_norm.begin(),
                              rest.gradient_norm.end());
  expect_same_curve(joined, whole);
}

TEST_F(Training, IsBitIdenticalWhenRepeated) {
  const Curve a = train(2, "a"), b = train(2, "b");
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.states, b.states);
}

TEST_F(Training, ACheckpointOfTwoRanksContinuesOnAnyNumber) {
  const Curve whole = train(2, "whole");
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    const std::string name = "resumed" + std::to_string(ranks);
    const Curve first = train(2, name, {"run.stop_at=5"});
    ASSERT_EQ(first.loss.size(), 5u);
    EXPECT_EQ(first.summary.steps, 5);
    // Before a step is made, the states are the checkpoint's, whoever holds them.
    const Curve restored = train(ranks, name, {"run.stop_at=5"});
    EXPECT_TRUE(restored.loss.empty());
    EXPECT_EQ(restored.states, first.states);

    const Curve rest = train(ranks, name);
    ASSERT_EQ(rest.loss.size(), 5u);
    EXPECT_EQ(rest.summary.steps, 10);
    Curve joined = first;
    joined.loss.insert(joined.loss.end(), rest.loss.begin(), rest.loss.end());
    joined.gradient_norm.insert(joined.gradient_norm.end(), rest.gradient_norm.begin(),
                                rest.gradient_norm.end());
    expect_same_curve(joined, whole);
    if (ranks == 2) {
      EXPECT_EQ(joined.loss, whole.loss);
      EXPECT_EQ(rest.states, whole.states);
    }
  }
}

TEST_F(Training, ACheckpointContinuesInAnotherParallelism) {
  const Curve whole = train(2, "whole");
  const Curve first = train(2, "moved", {"run.stop_at=5"});
  const Curve rest = train(4, "moved", {"parallelism.plugin=data_parallel"});
  const Curve more = train(1, "moved", {"parallelism.plugin=partial_fc", "run.steps=11"});
  ASSERT_EQ(rest.loss.size(), 5u);
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_NEAR(rest.loss[i], whole.loss[i + 5], 1e-4 * whole.loss[i + 5]);
  EXPECT_EQ(more.loss.size(), 1u);
}

// The rank that was told says so with the next step: that is the last one of all ranks.
TEST_F(Training, ASignalToOneRankStopsAllAtOneStep) {
  std::vector<std::unique_ptr<Job>> jobs;
  for (int rank = 0; rank < 3; ++rank) {
    jobs.push_back(std::make_unique<Job>(
        Job::parse(job_text(2, folder_ / "stopped"), "job.toml", {"dataset.batch=4"})));
  }
  std::atomic<int> interrupted{0};
  std::vector<std::vector<std::int64_t>> steps(3);
  std::mutex plugins_mutex;
  on_ranks(3, [&](int rank, Communicator* communicator) {
    const auto r = static_cast<std::size_t>(rank);
    std::unique_ptr<Trainer> trainer;
    {
      const std::lock_guard lock(plugins_mutex);
      trainer = std::make_unique<Trainer>(
          *jobs[r], plugins(),
          TrainerOptions{.communicator = communicator,
                         .interrupted = rank == 1 ? &interrupted : nullptr});
    }
    trainer->after_step = [&](const StepReport& report) {
      steps[r].push_back(report.step);
      if (rank == 1 && report.step == 3) interrupted = 15;
    };
    trainer->run();
    EXPECT_EQ(trainer->interrupted_by(), 15);
    EXPECT_EQ(trainer->summary().state, "interrupted");
    EXPECT_EQ(trainer->summary().steps, 4);
  });
  for (const auto& of_rank : steps) EXPECT_EQ(of_rank, (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_TRUE(fs::exists(folder_ / "stopped" / "checkpoints" / "step-00000004"));
}

TEST_F(Training, ARankThatFailsStopsTheOthersWithAReason) {
  // The batch of 2 ranks does not divide into groups of 3.
  EXPECT_THROW(train(2, "failed", {"parallelism.batch_norm=3"}), ConfigError);
}

}  // namespace
}  // namespace ftrain
