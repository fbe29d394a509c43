// Every recipe in configs/ is read strictly and planned, and the published ones say what they are
// known for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/train/assembly.h"

namespace {

namespace fs = std::filesystem;
using namespace ftrain;

const fs::path configs = fs::path(FTRAIN_SOURCE) / "configs";

std::vector<std::string> recipes() {
  std::vector<std::string> names;
  for (const auto& file : fs::directory_iterator(configs)) {
    if (file.path().extension() == ".toml") names.push_back(file.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Output {
  int code = -1;
  std::string text;
};

Output run(const std::string& command) {
  Output output;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) return output;
  char buffer[4096];
  for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
    output.text.append(buffer, n);
  }
  const int status = ::pclose(pipe);
  output.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

class Recipe : public testing::TestWithParam<std::string> {};

TEST_P(Recipe, IsPlannedWithoutItsData) {
  const fs::path file = configs / (GetParam() + ".toml");
  // The data may be there on one machine and not on another: here they never are.
  const std::string away = GetParam() == "quickstart" ? "" : " --set dataset.path=/nowhere.rec";
  const Output plan = run(std::string(FTRAIN_PROGRAM) + " plan " + file.string() + away +
                          " --set device.autotune=false --json");
  ASSERT_EQ(plan.code, 0) << plan.text;
  const auto json = nlohmann::json::parse(plan.text);
  EXPECT_GT(json.at("peak_memory_bytes").get<std::int64_t>(), 0);
  EXPECT_GT(json.at("parameters").get<std::int64_t>(), 0);
  EXPECT_FALSE(json.at("kernels").empty());
}

TEST_P(Recipe, IsNamedAsItsFile) {
  const Job job = Job::load(configs / (GetParam() + ".toml"));
  const auto registry = registry_for(job);
  EXPECT_EQ(Assembly(job, *registry).job.name, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Configs, Recipe, testing::ValuesIn(recipes()),
                         [](const auto& tested) { return tested.param; });

// What the recipes' sources say of optimizer and rate. The rate is checked at steps where it must
// just have changed, or not yet.
struct Published {
  const char* name;
  double rate, weight_decay, head_scale;
  std::int64_t batch, ranks;
  std::vector<std::pair<std::int64_t, double>> factors;
};

void expect_published(const Published& recipe) {
  SCOPED_TRACE(recipe.name);
  const Job job = Job::load(configs / (std::string(recipe.name) + ".toml"));
  const auto registry = registry_for(job);
  const Assembly assembly(job, *registry);
  EXPECT_EQ(assembly.optimizer->rate, recipe.rate);
  EXPECT_EQ(assembly.optimizer->weight_decay, recipe.weight_decay);
  EXPECT_EQ(assembly.head->scale, recipe.head_scale);
  EXPECT_EQ(assembly.data.batch, recipe.batch);
  EXPECT_EQ(assembly.launch.processes, recipe.ranks);
  EXPECT_EQ(job.root().table("optimizer").text("plugin"), "sgd");
  const std::int64_t steps = assembly.run.steps.value_or(100000);
  for (const auto& [step, factor] : recipe.factors) {
    EXPECT_NEAR(assembly.schedule->factor(step, steps, 5000), factor, 1e-12) << "at step " << step;
  }
}

TEST(Published, SeedRecipes) {
  expect_published({"r100_emore_arcface",
                    0.1,
                    5e-4,
                    64,
                    64,
                    8,
                    {{0, 1}, {99999, 1}, {100000, 0.1}, {159999, 0.1}, {160000, 0.01}}});
  expect_published({"r100_glint360k_cosface",
                    0.1,
                    5e-4,
                    64,
                    64,
                    8,
                    {{199999, 1}, {200000, 0.1}, {400000, 0.01}, {500000, 1e-3}, {550000, 1e-4}}});
  expect_published({"y1_emore_arcface",
                    0.1,
                    5e-4,
                    64,
                    256,
                    8,
                    {{99999, 1}, {100000, 0.1}, {160000, 0.01}, {220000, 1e-3}}});
}

TEST(Published, ArcfaceTorchRecipes) {
  for (const char* name : {"ms1mv3_r50", "ms1mv3_r100", "wf42m_r50", "wf42m_r100"}) {
    expect_published({name, 0.1, 5e-4, 64, 128, 8, {{0, 1}, {50000, 0.5}, {99999, 1e-5}}});
  }
}

TEST(Published, LfwWarmsUpForOneEpochAndFallsToZero) {
  expect_published(
      {"lfw", 0.05, 5e-4, 24, 32, 1, {{0, 0}, {2500, 0.5}, {5000, 1}, {52500, 0.5}, {100000, 0}}});
}

}  // namespace
