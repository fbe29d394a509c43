// Runs the built `ftrain` with plugins whose device code is compiled for the host, on the stand-in
// for a GPU; with FTRAIN_TEST_GPU set on the first GPU (bench/gpu.sh).
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/checkpoint/safetensors.h"
#include "tests/launch/program.h"

namespace standin {

using launch_test::Result;
using Settings = std::vector<std::string>;  // "head.plugin=softmax"

// An r18 takes minutes under AddressSanitizer.
#ifdef __SANITIZE_ADDRESS__
#define STANDIN_WANTS_SPEED() GTEST_SKIP() << "left to the build without sanitizers"
#else
#define STANDIN_WANTS_SPEED() static_cast<void>(0)
#endif

class Program : public launch_test::Launch {
 protected:
  void SetUp() override {
    Launch::SetUp();
    ::unsetenv("FTRAIN_STANDIN");
    if (on_gpu()) {
      ::unsetenv("FTRAIN_PLUGIN_PATH");
    } else {
      ::setenv("FTRAIN_PLUGIN_PATH", FTRAIN_STANDIN_PLUGINS, 1);
    }
    write("job.toml", small);
  }
  static bool on_gpu() { return std::getenv("FTRAIN_TEST_GPU") != nullptr; }
  void take_r18() const {
    const std::string other = "plugin = \"mobilefacenet\"\nscale = 1\nblocks = [1, 1, 1, 1]\n";
    std::string text = small;
    text.replace(text.find(other), other.size(), "plugin = \"iresnet\"\ndepth = 18\n");
    text.replace(text.find("batch = 4"), 9, "batch = 2");
    write("job.toml", text);
  }
  // What the stand-in is told (standin.h): "seed=3".
  static void tell_standin(const std::string& wishes) {
    ::setenv("FTRAIN_STANDIN", wishes.c_str(), 1);
  }

  Result try_to_train(const std::string& name, const Settings& settings) const {
    std::vector<std::string> words;
    for (const std::string& setting : settings) {
      words.push_back("--set");
      words.push_back(setting);
    }
    if (on_gpu()) {  // one GPU for all ranks, which are processes
      words.insert(words.end(), {"--set", "launch.communicator=mpi"});
      const bool cpu = std::count(settings.begin(), settings.end(), "device.plugin=cpu") > 0;
      if (!cpu) words.insert(words.end(), {"--set", "device.gpu=0"});
    }
    return ftrain(run(name, words));
  }
  void train(const std::string& name, const Settings& settings) const {
    const Result result = try_to_train(name, settings);
    ASSERT_EQ(result.code, 0) << name << ": " << result.err;
  }
  // The same job on the stand-in and on the CPU: "gpu" and "cpu".
  void train_on_both(Settings settings) const {
    train("gpu", settings);
    settings.push_back("device.plugin=cpu");
    train("cpu", settings);
  }

  std::vector<double> values(const std::string& name, const std::string& key) const {
    std::vector<double> found;
    for (const nlohmann::json& line : metrics(name)) {
      if (!line.contains(key)) continue;
      found.push_back(line[key].is_number() ? line[key].get<double>() : std::nan(""));
    }
    return found;
  }
  // Step by step, within a share of the CPU's largest.
  void expect_near(const std::string& name, const std::string& other, const std::string& key,
                   double share) const {
    const std::vector<double> got = values(name, key), expected = values(other, key);
    ASSERT_FALSE(expected.empty());
    ASSERT_EQ(got.size(), expected.size());
    const double largest = *std::max_element(expected.begin(), expected.end());
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], expected[i], share * largest) << key << " of step " << i + 1;
    }
  }

  launch_test::fs::path checkpoint(const std::string& name, int step) const {
    return run_folder(name) / "checkpoints" / ("step-0000000" + std::to_string(step));
  }
  // A tensor of one element.
  float scalar(const std::string& name, int step, const std::string& tensor) const {
    const ftrain::SafetensorsFile file(checkpoint(name, step) / "rank-0.safetensors");
    float value = 0;
    std::memcpy(&value, file.at(tensor).data, sizeof value);
    return value;
  }
  // A checkpoint's files, by name, to the byte.
  std::map<std::string, std::string> weights(const std::string& name, int step) const {
    std::map<std::string, std::string> files;
    std::error_code none;
    for (const auto& file : launch_test::fs::directory_iterator(checkpoint(name, step), none)) {
      if (file.path().extension() != ".safetensors") continue;
      files[file.path().filename()] = launch_test::read_text(file.path());
    }
    return files;
  }
  void expect_same_bits(const std::string& name, const std::string& other) const {
    EXPECT_EQ(metrics(name), metrics(other)) << name << " and " << other;
    const int last = summary(other)["steps"];
    const auto got = weights(name, last), expected = weights(other, last);
    ASSERT_FALSE(expected.empty());
    ASSERT_EQ(got.size(), expected.size());
    for (const auto& [file, bytes] : expected) {
      ASSERT_TRUE(got.contains(file)) << file;
      EXPECT_TRUE(got.at(file) == bytes) << file << " of " << name << " and " << other;
    }
  }

  static constexpr const char* small = R"(name = "small"
seed = 7
[device]
plugin = "cuda"
autotune = false
[backbone]
plugin = "mobilefacenet"
scale = 1
blocks = [1, 1, 1, 1]
embedding = 16
[head]
plugin = "arcface"
scale = 16.0
[optimizer]
plugin = "sgd"
rate = 0.01
momentum = 0.9
weight_decay = 5e-4
clip = 1.0
[schedule]
plugin = "step"
[parallelism]
plugin = "data_parallel"
[launch]
communicator = "local"
[dataset]
plugin = "portraits"
identities = 30
samples = 4
size = 32
image_size = 32
batch = 4
threads = 1
[run]
steps = 4
)";
};

}  // namespace standin
