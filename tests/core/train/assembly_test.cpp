// Which device "auto" is.
#include "core/train/assembly.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace ftrain {
namespace {

namespace fs = std::filesystem;

class AutomaticDevice : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("ftrain_auto_" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "plugins");
    fs::create_directories(folder_ / "dev");
    ::unsetenv("CUDA_VISIBLE_DEVICES");
  }
  void TearDown() override {
    ::unsetenv("CUDA_VISIBLE_DEVICES");
    fs::remove_all(folder_);
  }
  void make(const std::string& file) const { std::ofstream(folder_ / file) << "x"; }
  std::string chosen(const std::string& table = "plugin = \"auto\"\n") const {
    // The tree's own plugins may have one for GPUs: where those lie comes last.
    const Registry registry({folder_ / "plugins"});
    return device_name(Job::parse("[device]\n" + table), registry, folder_ / "dev");
  }
  fs::path folder_;
};

TEST_F(AutomaticDevice, IsTheGpuThatCanBeSeen) {
  make("plugins/cuda.so");
  EXPECT_EQ(chosen(), "cpu");
  for (const char* file : {"dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia"}) make(file);
  EXPECT_EQ(chosen(), "cpu");
  make("dev/nvidia1");
  EXPECT_EQ(chosen(), "cuda");
  EXPECT_EQ(chosen(""), "cuda");
  EXPECT_EQ(chosen("plugin = \"cpu\"\n"), "cpu");
  for (const char* none : {"", "-1"}) {
    ::setenv("CUDA_VISIBLE_DEVICES", none, 1);
    EXPECT_EQ(chosen(), "cpu");
  }
  ::setenv("CUDA_VISIBLE_DEVICES", "1", 1);
  EXPECT_EQ(chosen(), "cuda");
  fs::remove_all(folder_ / "dev");
  EXPECT_EQ(chosen(), "cpu");
}

}  // namespace
}  // namespace ftrain
