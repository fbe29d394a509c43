// The model of `ftrain plan --cluster`: its limits, its file, and published figures.
#include <gmock/gmock.h>
#include "bench/scaling/published.h"
#include "ftrain/base/error.h"
#include "launch/cluster/model.h"
#include "launch/cluster/work.h"
#include "launch/program.h"

namespace launch_test {
namespace {

using namespace ftrain::cluster;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using Kind = ftrain::Collective;

const fs::path clusters = fs::path(FTRAIN_SOURCE) / "configs" / "clusters";

// ---- the formulas

const Links ideal;
const Compute second{.forward = 0.3, .backward = 0.6, .centers = 0.1};

TEST(ClusterModel, PlacesRanksOnWholeNodes) {
  EXPECT_EQ(place(1, 8).count(), 1);
  EXPECT_EQ(place(4, 8).nodes, 1);
  EXPECT_EQ(place(4, 8).each, 4);
  EXPECT_EQ(place(32, 8).nodes, 4);
  EXPECT_EQ(place(32, 8).each, 8);
}

TEST(ClusterModel, OneRankSendsNothingAndWaitsForNobody) {
  const Links slow{{1, 1, true}, {1, 1, true}};
  const std::vector<Exchange> collectives{
      {Kind::all_reduce, 1e9, true}, {Kind::all_gather, 1e9, false}, {Kind::broadcast, 1, false}};
  const StepTime time = step_time(second, 0.6, collectives, {1, 1}, slow, {0.5, 0.5, 5});
  EXPECT_DOUBLE_EQ(time.total(), 1);
  EXPECT_EQ(traffic(collectives, {1, 1}).inside, 0);
  EXPECT_EQ(traffic(collectives, {1, 1}).between, 0);
}

TEST(ClusterModel, AnIdealClusterHasAPerfectSpeedup) {
  const std::vector<Exchange> collectives{{Kind::all_reduce, 1e12, true},
                                          {Kind::reduce_scatter, 1e12, false}};
  for (const Ranks ranks : {Ranks{1, 8}, Ranks{4, 8}, Ranks{32, 1}}) {
    EXPECT_DOUBLE_EQ(step_time(second, 0.6, collectives, ranks, ideal, {}).total(), 1);
  }
}

TEST(ClusterModel, ARingSendsEachByteTwiceButItsOwnShare) {
  const Links links{{0, 100, false}, {}};
  for (const int n : {2, 3, 8}) {
    const Exchange sum{Kind::all_reduce, 600, false};
    EXPECT_DOUBLE_EQ(seconds(sum, {1, n}, links), 2.0 * (n - 1) / n * 6);
    EXPECT_DOUBLE_EQ(traffic(sum, {1, n}).inside, 2.0 * (n - 1) / n * 600);
    const Exchange gather{Kind::all_gather, 600, false};
    EXPECT_DOUBLE_EQ(seconds(gather, {1, n}, links), (n - 1.0) / n * 6);
    EXPECT_DOUBLE_EQ(seconds({Kind::reduce_scatter, 600, false}, {1, n}, links),
                     seconds(gather, {1, n}, links));
  }
}

TEST(ClusterModel, SmallSumsTakeATree) {
  const Links links{{1e-3, 1e9, false}, {}};
  EXPECT_NEAR(seconds({Kind::all_reduce, 8, false}, {1, 256}, links), 16e-3, 1e-6);
}

TEST(ClusterModel, NodesExchangeSharesOfTheirDevices) {
  Links links{{0, 1000, false}, {0, 10, false}};
  const Exchange sum{Kind::all_reduce, 800, false};
  const double inside = 2 * 7.0 / 8 * 0.8;
  EXPECT_DOUBLE_EQ(seconds(sum, {4, 8}, links), inside + 2 * 3.0 / 4 * 100 / 10);
  EXPECT_DOUBLE_EQ(traffic(sum, {4, 8}).between, 2 * 3.0 / 4 * 100);
  links.between.shared = true;  // one wire for eight
  EXPECT_DOUBLE_EQ(seconds(sum, {4, 8}, links), inside + 2 * 3.0 / 4 * 800 / 10);
}

TEST(ClusterModel, OverlapHidesItsShareAndNoMoreThanTheWindow) {
  const Links links{{0, 1, false}, {}};
  const auto exposed = [&](double bytes, double overlap) {
    return step_time(second, 0.6, {{Kind::all_reduce, bytes, true}}, {1, 2}, links,
                     {.overlap = overlap})
        .exposed;
  };
  EXPECT_DOUBLE_EQ(exposed(0.5, 1), 0);
  EXPECT_DOUBLE_EQ(exposed(0.5, 0.9), 0.05);
  EXPECT_DOUBLE_EQ(exposed(0.5, 0), 0.5);
  EXPECT_DOUBLE_EQ(exposed(1, 1), 0.4);
  const StepTime blocked =
      step_time(second, 0.6, {{Kind::all_reduce, 0.5, false}}, {1, 2}, links, {.overlap = 1});
  EXPECT_DOUBLE_EQ(blocked.blocking, 0.5);
  EXPECT_DOUBLE_EQ(blocked.total(), 1.5);
}

TEST(ClusterModel, WaitingGrowsWithDoublingsAndReadingBoundsAStep) {
  const Pace pace{.overlap = 1, .slowdown = 0.1, .wait = 0.2};
  const StepTime time = step_time(second, 0.6, {}, {1, 8}, ideal, pace);
  EXPECT_DOUBLE_EQ(time.compute, 1.1);
  EXPECT_DOUBLE_EQ(time.waiting, 0.6);
  EXPECT_DOUBLE_EQ(step_time(second, 0.6, {}, {1, 8}, ideal, pace, 5).total(), 5);
  EXPECT_DOUBLE_EQ(step_time(second, 0.6, {}, {1, 8}, ideal, pace, 1).total(), time.total());
}

TEST(ClusterModel, CountingAndMeasuringGiveSeconds) {
  Work work;
  work.samples = 10;
  work.forward = {100, 1000};
  work.backward = {200, 3000};
  work.center_flops = 50;
  work.center_bytes = 40;
  work.update_bytes = 80;
  DeviceDescription device;
  device.flops = 100;
  device.bandwidth = 40;
  device.reach = 0.5;
  device.traffic = 0.25;
  const Compute counted = compute_of(work, device, "bf16", nullptr);
  EXPECT_DOUBLE_EQ(counted.forward, 2 + 12.5);
  EXPECT_DOUBLE_EQ(counted.backward, 4 + 37.5);
  EXPECT_DOUBLE_EQ(counted.centers, 0.5 + 1);
  EXPECT_DOUBLE_EQ(counted.update, 2);
  EXPECT_DOUBLE_EQ(compute_of(work, device, "fp32", nullptr).forward, 2 + 25);
  Measured measured;
  measured.samples_per_second = 5;
  EXPECT_DOUBLE_EQ(compute_of(work, device, "bf16", &measured).total(), 2 + 1.5);
  EXPECT_DOUBLE_EQ(compute_of(work, device, "bf16", &measured).backward, 4.0 / 3);
}

// ---- published figures

TEST(ClusterModel, PublishedFiguresAreMet) {
  const Description v100 = load(clusters / "v100_4x8.toml", "fp32");
  const std::vector<Published> rows =
      read_published(fs::path(FTRAIN_SOURCE) / "bench" / "scaling" / "published.csv");
  ASSERT_EQ(rows.size(), 40u);
  const Deviation found = deviation(rows, v100);
  EXPECT_EQ(found.rows, 39);
  EXPECT_LT(found.rms, 0.0125);
  EXPECT_LT(found.worst, 0.049);
}

TEST(ClusterModel, EveryFittedNumberMatters) {
  const std::vector<Published> rows =
      read_published(fs::path(FTRAIN_SOURCE) / "bench" / "scaling" / "published.csv");
  const auto rms = [&](const std::vector<std::string>& sets) {
    return deviation(rows, load(clusters / "v100_4x8.toml", "fp32", sets)).rms;
  };
  const double fitted = rms({});
  for (const char* set :
       {"link.inside.bandwidth=3e11", "link.between.bandwidth=2e9", "step.overlap=0.95",
        "step.overlap=0", "step.slowdown=0.03", "step.wait=0"}) {
    EXPECT_GT(rms({set}), 1.05 * fitted) << set;
  }
}

// ---- the file

class ClusterFile : public testing::Test {
 protected:
  static std::string error_of(const std::string& text, const std::string& precision = "fp32") {
    try {
      parse(ftrain::Job::parse(text, "cluster.toml"), precision);
    } catch (const ftrain::ConfigError& error) {
      return error.what();
    }
    return "none";
  }
  static std::string changed(const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  }
  static constexpr const char* good = R"(nodes = 2
devices = 4
[device]
memory = 16e9
bandwidth = 9e11
[device.flops]
fp32 = 14e12
[device.measured.small]
backbone = "mobilefacenet"
samples_per_second = 100
[link.inside]
latency = 1e-6
bandwidth = 1e11
[link.between]
bandwidth = 1e10
shared = true
)";
};

TEST_F(ClusterFile, IsRead) {
  const Description cluster = parse(ftrain::Job::parse(good, "cluster.toml"), "fp32");
  EXPECT_EQ(cluster.size(), 8);
  EXPECT_EQ(cluster.device.flops, 14e12);
  EXPECT_EQ(cluster.links.inside.latency, 1e-6);
  EXPECT_FALSE(cluster.links.inside.shared);
  EXPECT_TRUE(cluster.links.between.shared);
  ASSERT_EQ(cluster.device.measured.size(), 1u);
  EXPECT_EQ(cluster.device.measured[0].name, "small");
}

TEST_F(ClusterFile, SlipsAreToldWithTheirLine) {
  EXPECT_THAT(error_of(changed("latency", "latencey")),
              AllOf(HasSubstr("cluster.toml:12"), HasSubstr("latency")));
  EXPECT_THAT(error_of(changed("1e10", "-1")), HasSubstr("cluster.toml:15"));
  EXPECT_THAT(error_of(changed("devices = 4\n", "")),
              AllOf(HasSubstr("devices is missing"), HasSubstr("devices = 8")));
  EXPECT_THAT(
      error_of(changed("bandwidth = 1e10\n", "")),
      AllOf(HasSubstr("cluster.toml:14"), HasSubstr("[link.between] bandwidth is missing")));
  EXPECT_THAT(error_of(changed("link.between", "link.betwen")),
              AllOf(HasSubstr("cluster.toml:14"), HasSubstr("[link.inside]")));
  EXPECT_THAT(error_of(changed("nodes = 2", "nodes = 0")), HasSubstr("cluster.toml:1"));
  EXPECT_THAT(error_of(changed("backbone = \"mobilefacenet\"\n", "")), HasSubstr("backbone"));
  EXPECT_THAT(error_of(good, "bf16"),
              AllOf(HasSubstr("cluster.toml:6"), HasSubstr("it has fp32"), HasSubstr("bf16 =")));
}

TEST_F(ClusterFile, OneNodeNeedsNoLinkBetweenNodes) {
  std::string text = changed("nodes = 2", "nodes = 1");
  text.erase(text.find("[link.between]"));
  EXPECT_EQ(error_of(text), "none");
}

TEST(ClusterFiles, AllAreRead) {
  int files = 0;
  for (const auto& file : fs::directory_iterator(clusters)) {
    EXPECT_NO_THROW(load(file.path(), "fp32")) << file.path();
    ++files;
  }
  EXPECT_GE(files, 4);
}

// ---- the command

class ClusterPlanned : public Launch {
 protected:
  json plan(const std::vector<std::string>& sets = {}) const {
    std::vector<std::string> words{"plan", "job.toml", "--json", "--cluster", "cluster.toml"};
    for (const std::string& set : sets) words.insert(words.end(), {"--set", set});
    const Result result = ftrain(words);
    EXPECT_EQ(result.code, 0) << result.err;
    return json::parse(result.out, nullptr, false);
  }
  void SetUp() override {
    Launch::SetUp();
    write("cluster.toml", cluster);
  }
  // Two nodes of two. Nothing but links costs.
  static constexpr const char* cluster = R"(name = "four"
nodes = 2
devices = 2
[device]
memory = 1e9
bandwidth = 1e10
[device.flops]
fp32 = 1e11
[link.inside]
bandwidth = 1e9
[link.between]
bandwidth = 1e8
[step]
overlap = 0.5
)";
};

TEST_F(ClusterPlanned, SaysWhatEveryNumberOfDevicesDoes) {
  const json found = plan();
  ASSERT_EQ(found.at("counts").size(), 3u);
  EXPECT_EQ(found.at("cluster"), "four");
  EXPECT_GT(found.at("flops_per_sample"), 0);
  const json& one = found["counts"][0];
  EXPECT_EQ(one.at("ranks"), 1);
  EXPECT_EQ(one.at("speedup"), 1);
  EXPECT_EQ(one.at("sent_inside_bytes"), 0);
  EXPECT_EQ(one.at("exposed_seconds"), 0);
  double before = 0;
  for (const json& count : found["counts"]) {
    EXPECT_GT(count.at("samples_per_second"), before);
    before = count["samples_per_second"];
    EXPECT_LE(count.at("efficiency"), 1.0001);
    EXPECT_EQ(
        count.at("memory_bytes").get<std::size_t>(),
        count.at("resident_bytes").get<std::size_t>() + count.at("arena_bytes").get<std::size_t>());
    EXPECT_TRUE(count.at("fits"));
  }
  const json& four = found["counts"][2];
  EXPECT_EQ(four.at("nodes"), 2);
  EXPECT_GT(four.at("sent_between_bytes"), 0);
  EXPECT_NEAR(four.at("step_seconds").get<double>(),
              four.at("compute_seconds").get<double>() + four.at("blocking_seconds").get<double>() +
                  four.at("exposed_seconds").get<double>(),
              1e-12);
  EXPECT_EQ(found.at("strategies").size(), 3u);
}

TEST_F(ClusterPlanned, GradientsAreWhatDataParallelSends) {
  const Result result = ftrain({"plan", "job.toml", "--json", "--set", "device.autotune=false"});
  ASSERT_EQ(result.code, 0) << result.err;
  // With them travels what the ranks tell each other, two numbers.
  const double gradients = 4 * (json::parse(result.out).at("parameters").get<double>() + 2);
  const json found = plan();
  // Half of them scattered, half gathered; and the loss.
  EXPECT_NEAR(found["counts"][1].at("sent_inside_bytes").get<double>(), gradients, 16);
  EXPECT_NEAR(found["counts"][1].at("overlapping_seconds").get<double>(), gradients / 1e9, 1e-9);
}

TEST_F(ClusterPlanned, ClassesAreSplitAndSampled) {
  const json found =
      plan({"dataset.plugin=synthetic", "dataset.classes=200000", "dataset.size=1000",
            "verify.sets=[]", "parallelism.plugin=partial_fc", "parallelism.sample_rate=0.1"});
  const json& strategies = found.at("strategies");
  ASSERT_EQ(strategies.size(), 3u);
  const auto value = [&](std::size_t i, const char* key) {
    return strategies[i].at(key).get<double>();
  };
  // 200,000 centers of width 16 with their momentum: all on each rank, or a quarter.
  const double centers = 200000.0 * 16 * 4 * 2;
  EXPECT_NEAR(value(0, "resident_bytes") - value(1, "resident_bytes"), 0.75 * centers,
              0.01 * centers);
  EXPECT_EQ(value(1, "resident_bytes"), value(2, "resident_bytes"));
  EXPECT_GT(value(0, "sent_inside_bytes"), value(1, "sent_inside_bytes") + 0.9 * centers / 2);
  EXPECT_GT(value(1, "class_center_seconds"), 7 * value(2, "class_center_seconds"));
  EXPECT_EQ(value(2, "step_seconds"), found["counts"][2].at("step_seconds").get<double>());
}

TEST_F(ClusterPlanned, DevicesThatAreTooSmallAreTold) {
  std::string text = cluster;
  write("cluster.toml", text.replace(text.find("1e9"), 3, "1e5"));
  for (const json& count : plan().at("counts")) EXPECT_FALSE(count.at("fits"));
  const Result words = ftrain({"plan", "job.toml", "--cluster", "cluster.toml"});
  EXPECT_EQ(words.code, 0) << words.err;
  EXPECT_THAT(words.out, AllOf(HasSubstr("too much"), HasSubstr("predicted, not run"),
                               HasSubstr("model_parallel")));
}

TEST_F(ClusterPlanned, MeasuredNetworksAreTakenAsMeasured) {
  write("cluster.toml", std::string(cluster) +
                            "[device.measured.mine]\nbackbone = \"mobilefacenet\"\n"
                            "samples_per_second = 2\n");
  const json found = plan();
  EXPECT_THAT(found.at("basis").get<std::string>(), HasSubstr("mine"));
  EXPECT_NEAR(found["counts"][0].at("step_seconds").get<double>(), 4 / 2.0, 0.01);
}

TEST_F(ClusterPlanned, ABadFileEndsWithItsLine) {
  std::string text = cluster;
  write("cluster.toml", text.replace(text.find("overlap = 0.5"), 13, "overlap = 1.5"));
  const Result result = ftrain({"plan", "job.toml", "--cluster", "cluster.toml"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("cluster.toml:14"), HasSubstr("overlap")));
}

}  // namespace
}  // namespace launch_test
