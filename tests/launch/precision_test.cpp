// Training in bf16 by the command line: it follows f32, continues to the same bits, and writes the
// checkpoints that f32 writes.
#include <gmock/gmock.h>

#include <cstring>

#include "launch/program.h"

namespace launch_test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Bf16 : public Launch {
 protected:
  void SetUp() override {
    Launch::SetUp();
    const Result plan = ftrain({"plan", "job.toml", "--set", "device.precision=bf16"});
    if (plan.code != 0 && plan.err.find("no dot products of bf16") != std::string::npos) {
      GTEST_SKIP() << "this processor has no dot products of bf16";
    }
    ASSERT_EQ(plan.code, 0) << plan.err;
  }
  static std::vector<std::string> with(std::vector<std::string> settings,
                                       const std::string& precision) {
    settings.push_back("device.precision=" + precision);
    std::vector<std::string> words;
    for (const std::string& setting : settings) {
      words.push_back("--set");
      words.push_back(setting);
    }
    return words;
  }

  // Losses of both precisions, step by step: within a share of the first, and down together.
  void expect_that_curves_agree(const std::vector<std::string>& settings, double share) {
    for (const char* precision : {"fp32", "bf16"}) {
      const Result result = ftrain(run(precision, with(settings, precision)));
      ASSERT_EQ(result.code, 0) << result.err;
    }
    const std::vector<double> full = losses("fp32"), half = losses("bf16");
    ASSERT_EQ(full.size(), half.size());
    for (std::size_t i = 0; i < full.size(); ++i) {
      EXPECT_NEAR(half[i], full[i], share * full[0]) << "step " << i + 1;
    }
    EXPECT_LT(full.back(), 0.1 * full[0]);
    EXPECT_LT(half.back(), 0.1 * full[0]);
    EXPECT_NE(half, full);
  }

 private:
  std::vector<double> losses(const std::string& name) const {
    std::vector<double> found;
    for (const json& line : metrics(name)) {
      if (line.contains("loss")) found.push_back(line["loss"]);
    }
    return found;
  }
};

TEST_F(Bf16, MobileFaceNetFollowsF32) {
  expect_that_curves_agree({"run.steps=30", "dataset.batch=24", "optimizer.clip=1.0"}, 0.1);
}

TEST_F(Bf16, IResNetFollowsF32) {
  const std::string small =
      "plugin = \"mobilefacenet\"\nscale = 1\nembedding = 16\n"
      "blocks = [1, 1, 1, 1]";
  std::string text = job;
  ASSERT_NE(text.find(small), std::string::npos);
  text.replace(text.find(small), small.size(), "plugin = \"iresnet\"\ndepth = 18\nembedding = 16");
  write("job.toml", text);
  expect_that_curves_agree(
      {"run.steps=12", "dataset.batch=16", "optimizer.rate=0.02", "optimizer.clip=1.0"}, 0.03);
}

TEST_F(Bf16, StoppedAtAStepContinuesToTheSameBits) {
  ASSERT_EQ(ftrain(run("whole", with({}, "bf16"))).code, 0);
  ASSERT_EQ(ftrain(run("parts", with({"run.stop_at=2"}, "bf16"))).code, 0);
  ASSERT_EQ(ftrain(run("parts", with({}, "bf16"))).code, 0);
  EXPECT_EQ(metrics("parts"), metrics("whole"));
}

// The names, types and sizes that a safetensors file begins with.
json header_of(const fs::path& path) {
  const std::string text = read_text(path);
  std::uint64_t length = 0;
  if (text.size() < sizeof length) return {};
  std::memcpy(&length, text.data(), sizeof length);
  return json::parse(text.substr(sizeof length, length), nullptr, false);
}

TEST_F(Bf16, CheckpointsAreThoseOfF32) {
  for (const char* precision : {"fp32", "bf16"}) {
    ASSERT_EQ(ftrain(run(precision, with({}, precision))).code, 0);
  }
  std::size_t files = 0, tensors = 0;
  for (const auto& entry :
       fs::recursive_directory_iterator(run_folder("fp32") / "checkpoints/step-00000006")) {
    if (entry.path().extension() != ".safetensors") continue;
    const json full = header_of(entry.path());
    const json half =
        header_of(run_folder("bf16") / fs::relative(entry.path(), run_folder("fp32")));
    EXPECT_EQ(half, full) << entry.path();
    ++files;
    for (const auto& [name, tensor] : full.items()) {
      if (name == "__metadata__") continue;
      EXPECT_EQ(tensor["dtype"], "F32") << name;
      ++tensors;
    }
  }
  EXPECT_GT(files, 0u);
  EXPECT_GT(tensors, 20u);
}

TEST_F(Bf16, OtherInstructionsAreRefused) {
  const Result result = ftrain(run("a", with({"device.isa=avx2"}, "bf16")));
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("isa = \"avx2\" has no dot products of bf16"));
}

}  // namespace
}  // namespace launch_test
