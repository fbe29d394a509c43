// Choosing kernels by measuring them: who wins, who remembers, and what a bad file does.
#include "plugins/devices/cpu/tune/tuner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <thread>

#include "ftrain/base/error.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/tune/measure.h"
#include "step.h"

namespace ftrain::cpu {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;
using testing::UnorderedElementsAre;

std::atomic<int> launches{0};

// Sleeps for so long in a launch: what one takes for a kernel's work.
template <int milliseconds>
class Sleeper final : public Kernel {
 public:
  void bind(std::span<void* const>, std::span<void* const>, void*) override {}
  void launch() override {
    ++launches;
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  }
};

template <int milliseconds>
std::unique_ptr<Kernel> sleeper(const Node&, const KernelEnvironment&) {
  return std::make_unique<Sleeper<milliseconds>>();
}

std::unique_ptr<Kernel> thrower(const Node&, const KernelEnvironment&) {
  throw std::runtime_error("out of registers");
}

std::string switched_off(const Node&, const KernelEnvironment&) {
  return "switched off";
}

KernelList two_kernels() {
  KernelList list;
  list.add({"conv2d", "plain", 0, nullptr, sleeper<1>});
  list.add({"conv2d", "slow", 30, nullptr, sleeper<12>});
  list.add({"conv2d", "fast", 20, nullptr, sleeper<1>});
  list.add({"conv2d", "absent", 40, switched_off, sleeper<0>});
  return list;
}

std::string content_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class TunerTest : public testing::Test {
 protected:
  void SetUp() override {
    static int count = 0;
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("tuner_test_" + std::to_string(getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(folder_);
    if (const char* before = std::getenv("FTRAIN_CACHE")) before_ = before;
    use(folder_ / "cache");
    const Value x = graph_.input("x", {DType::f32, Shape{2, 16, 8, 8}});
    const Value w = graph_.state({.name = "w", .type = {DType::f32, Shape{16, 16, 3, 3}}});
    y_ = ops::conv2d(x, w, {1, 1, 1});
    launches = 0;
  }
  void TearDown() override {
    if (before_)
      setenv("FTRAIN_CACHE", before_->c_str(), 1);
    else
      unsetenv("FTRAIN_CACHE");
    std::filesystem::remove_all(folder_);
  }

  static void use(const std::filesystem::path& cache) { setenv("FTRAIN_CACHE", cache.c_str(), 1); }
  std::filesystem::path file() const { return folder_ / "cache" / "kernels.json"; }
  KernelChoice choose(const KernelList& list, const Answers& repeated = {}) {
    return Tuner(list, environment_, repeated).choose(y_.node());
  }

  std::filesystem::path folder_;
  std::optional<std::string> before_;
  Graph graph_;
  Value y_;
  KernelEnvironment environment_{.threads = 2, .isa = "avx2"};
};

TEST_F(TunerTest, TakesTheFastestAndTellsTheRest) {
  const KernelChoice choice = choose(two_kernels());
  EXPECT_EQ(choice.def->name, "fast");
  ASSERT_THAT(choice.measured, ElementsAre(Pair("fast", testing::_), Pair("slow", testing::_)));
  EXPECT_GE(choice.measured[1].second, 0.012);
  EXPECT_THAT(choice.refused, ElementsAre(Pair("absent", "switched off")));
}

TEST_F(TunerTest, MeasuresAProblemOnceInAProcess) {
  choose(two_kernels());
  const int once = launches;
  EXPECT_EQ(choose(two_kernels()).def->name, "fast");
  EXPECT_EQ(launches, once);
  environment_.threads = 1;  // another problem
  choose(two_kernels());
  EXPECT_GT(launches, once);
}

TEST_F(TunerTest, AnotherProcessReadsTheFile) {
  choose(two_kernels());
  // To this process another folder is as unknown as to a new one.
  std::filesystem::copy(folder_ / "cache", folder_ / "copy");
  use(folder_ / "copy");
  const int before = launches;
  const KernelChoice choice = choose(two_kernels());
  EXPECT_EQ(launches, before);
  EXPECT_EQ(choice.def->name, "fast");
  EXPECT_THAT(choice.measured, SizeIs(2));
}

TEST_F(TunerTest, OtherKernelsThanTheFileKnowsAreMeasured) {
  choose(two_kernels());
  KernelList more = two_kernels();
  more.add({"conv2d", "faster", 25, nullptr, sleeper<0>});
  EXPECT_EQ(choose(more).def->name, "faster");
  EXPECT_EQ(choose(two_kernels()).def->name, "fast");
}

TEST_F(TunerTest, AddsToWhatOthersWrote) {
  const Circumstances others{"another processor", "oneDNN 9"};
  std::filesystem::create_directories(file().parent_path());
  std::ofstream(file()) << text_of({{"problem", {"some", {{"some", 0.5}}}}}, others);
  choose(two_kernels());
  const std::string text = content_of(file());
  EXPECT_THAT(answers_in(text, others), ElementsAre(Pair("problem", testing::_)));
  const Answers own = answers_in(text, circumstances_of(environment_));
  ASSERT_THAT(own, ElementsAre(Pair(problem_of(y_.node()), testing::_)));
  EXPECT_EQ(own.begin()->second.kernel, "fast");
  EXPECT_THAT(own.begin()->second.seconds,
              UnorderedElementsAre(Pair("fast", testing::_), Pair("slow", testing::_)));
}

TEST_F(TunerTest, ADamagedFileIsReplaced) {
  std::filesystem::create_directories(file().parent_path());
  for (const char* text : {"{\"half", "[1, 2]", "\xff\xfe"}) {
    std::ofstream(file()) << text;
    environment_.threads += 1;
    EXPECT_EQ(choose(two_kernels()).def->name, "fast") << text;
    EXPECT_THAT(answers_in(content_of(file()), circumstances_of(environment_)), SizeIs(1)) << text;
  }
  // Of another make below the right keys.
  const Circumstances here = circumstances_of(environment_);
  EXPECT_THROW(
      answers_in("{\"" + here.processor + "\": {\"" + here.rest + "\": {\"p\": 3}}}", here),
      DataError);
}

TEST_F(TunerTest, WhereNothingCanBeWrittenItStillChooses) {
  std::ofstream(folder_ / "a_file") << "not a folder";
  use(folder_ / "a_file");
  EXPECT_EQ(choose(two_kernels()).def->name, "fast");
  EXPECT_EQ(content_of(folder_ / "a_file"), "not a folder");
}

TEST_F(TunerTest, TheFileIsWhereTheEnvironmentSays) {
  const auto with = [](const char* name, const char* value) {
    if (value != nullptr)
      setenv(name, value, 1);
    else
      unsetenv(name);
  };
  const char* home = std::getenv("HOME");
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const std::optional<std::string> old_home =
      home ? std::optional<std::string>(home) : std::nullopt;
  const std::optional<std::string> old_cache =
      cache ? std::optional<std::string>(cache) : std::nullopt;
  EXPECT_EQ(answers_file(), file());
  unsetenv("FTRAIN_CACHE");
  with("XDG_CACHE_HOME", "/caches");
  EXPECT_EQ(answers_file(), "/caches/ftrain/kernels.json");
  with("XDG_CACHE_HOME", nullptr);
  with("HOME", "/home/someone");
  EXPECT_EQ(answers_file(), "/home/someone/.cache/ftrain/kernels.json");
  with("HOME", nullptr);
  EXPECT_TRUE(answers_file().empty());
  EXPECT_EQ(choose(two_kernels()).def->name, "fast");
  with("HOME", old_home ? old_home->c_str() : nullptr);
  with("XDG_CACHE_HOME", old_cache ? old_cache->c_str() : nullptr);
}

TEST_F(TunerTest, WhatARunTookBeforeIsTakenAgain) {
  const std::string problem = problem_of(y_.node());
  const Answers slow{{problem, {"slow", {{"slow", 1}, {"fast", 2}}}}};
  const KernelChoice choice = choose(two_kernels(), slow);
  EXPECT_EQ(choice.def->name, "slow");
  EXPECT_EQ(launches, 0);
  EXPECT_THAT(choice.measured, ElementsAre(Pair("slow", 1), Pair("fast", 2)));
  const Answers gone{{problem, {"gone", {{"gone", 1}, {"fast", 2}}}}};
  EXPECT_EQ(choose(two_kernels(), gone).def->name, "fast");
}

TEST_F(TunerTest, WhoThrowsLoses) {
  KernelList list = two_kernels();
  list.add({"conv2d", "broken", 50, nullptr, thrower});
  const KernelChoice choice = choose(list);
  EXPECT_EQ(choice.def->name, "fast");
  EXPECT_THAT(choice.refused, testing::Contains(Pair("broken", "out of registers")));
}

TEST_F(TunerTest, ThreadsChooseAlikeAndMeasureOnce) {
  choose(two_kernels());
  const int once = launches;
  launches = 0;
  use(folder_ / "another");
  std::vector<KernelChoice> choices(4);
  std::vector<std::thread> threads;
  for (KernelChoice& choice : choices) {
    threads.emplace_back([&] { choice = choose(two_kernels()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const KernelChoice& choice : choices) {
    EXPECT_EQ(choice.measured, choices[0].measured);
    EXPECT_EQ(choice.def->name, "fast");
  }
  EXPECT_LT(launches, 2 * once);
}

TEST_F(TunerTest, OpsWithOneFastKernelAreNotMeasured) {
  KernelList list;
  list.add({"conv2d", "plain", 0, nullptr, sleeper<0>});
  list.add({"conv2d", "fast", 20, nullptr, sleeper<0>});
  const KernelChoice choice = choose(list);
  EXPECT_EQ(choice.def->name, "fast");
  EXPECT_THAT(choice.measured, IsEmpty());
  EXPECT_EQ(launches, 0);
}

// Rows of: the kernels with their seconds, by priority ("~" for a coarse one), and who wins.
TEST(Winner, IsTheFastestWithPreferences) {
  struct Row {
    std::vector<std::pair<std::string, double>> seconds;
    std::string winner;
  };
  const Row rows[] = {
      {{{"a", 1.0}}, "a"},
      {{{"a", 2.0}, {"b", 1.0}}, "b"},
      {{{"a", 1.02}, {"b", 1.0}}, "a"},  // as good as equal: the order
      {{{"a", 1.04}, {"b", 1.0}}, "b"},
      {{{"~a", 0.96}, {"b", 1.0}}, "b"},  // not clearly faster
      {{{"~a", 0.90}, {"b", 1.0}}, "~a"},
      {{{"~a", 0.50}, {"~b", 0.51}, {"c", 1.0}}, "~a"},
      {{{"~a", 0.51}, {"~b", 0.50}, {"c", 1.0}}, "~a"},
      {{{"~a", 0.60}, {"~b", 0.50}, {"c", 0.51}}, "c"},
  };
  for (const Row& row : rows) {
    std::vector<KernelDef> defs;
    for (const auto& [name, seconds] : row.seconds) {
      defs.push_back({"conv2d", name, 0, nullptr, nullptr, name[0] == '~'});
    }
    std::vector<Timing> timings;
    for (std::size_t i = 0; i < defs.size(); ++i) {
      timings.push_back({&defs[i], row.seconds[i].second});
    }
    EXPECT_EQ(winner(timings)->name, row.winner);
  }
}

TEST(TunedDevice, GivesItsChoicesAndRepeatsThem) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, Shape{2, 32, 14, 14}});
  const Value w = graph.state({.name = "w", .type = {DType::f32, Shape{32, 32, 3, 3}}});
  graph.fetch("y", ops::conv2d(x, w, {1, 1, 1}));
  const auto open = [] {
    auto device = open_device();
    device->autotune = true;
    return device;
  };
  const auto kernel_of = [](const Program& program) {
    for (const KernelChoice& choice : program.kernels) {
      if (choice.def != nullptr && choice.def->op == "conv2d") return choice;
    }
    return KernelChoice{};
  };
  const auto first = open();
  EXPECT_EQ(first->choices(), "");
  const Program program = first->prepare(graph, nullptr, nullptr);
  const KernelChoice taken = kernel_of(program);
  if (taken.measured.size() < 2) GTEST_SKIP() << "this processor has one fast kernel for it";
  EXPECT_THAT(program.kernels_text(),
              AllOf(HasSubstr(std::string(taken.def->name) + ", "), HasSubstr(" ms, "),
                    HasSubstr("GFLOP/s; against " + taken.measured[1].first + " ")));

  // A run that took the loser goes on with it.
  const Circumstances here = circumstances_of(first->environment(nullptr));
  Answers answers = answers_in(first->choices(), here);
  ASSERT_THAT(answers, SizeIs(1));
  answers.begin()->second.kernel = taken.measured[1].first;
  const auto second = open();
  second->repeat(text_of(answers, here));
  EXPECT_EQ(kernel_of(second->prepare(graph, nullptr, nullptr)).def->name, taken.measured[1].first);
  EXPECT_EQ(answers_in(second->choices(), here).begin()->second.kernel, taken.measured[1].first);

  const auto third = open();
  third->repeat("damaged");
  EXPECT_EQ(kernel_of(third->prepare(graph, nullptr, nullptr)).def->name, taken.def->name);
  const auto fixed = open_device();
  EXPECT_THAT(kernel_of(fixed->prepare(graph, nullptr, nullptr)).measured, IsEmpty());
  EXPECT_EQ(fixed->choices(), "");
}

}  // namespace
}  // namespace ftrain::cpu
