// NCCL on a real GPU, as far as one rank goes: it joins, enqueues, is captured and replayed, and
// what is enqueued after an end throws.
#include <gmock/gmock.h>

#include <filesystem>
#include <functional>
#include <numeric>
#include <optional>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/device/communicator.h"
#include "ftrain/plugin/registry.h"
#include "plugins/devices/cuda/runtime/capture.h"
#include "tests/cuda/gpu/gpu_fixture.h"

namespace ftrain::cuda {
namespace {

class NcclOnGpu : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    if (!std::filesystem::exists(std::filesystem::path(FTRAIN_PLUGINS) / "nccl.so")) {
      GTEST_SKIP() << "built without NCCL";
    }
    check(cudaSetDevice(0), "taking the first GPU");
    stream_.emplace();
    ranks_ = registry_.create<Communicator>("nccl", Table::empty("launch"));
    ranks_->carry_by(registry_.create<Communicator>("local", Table::empty("launch")));
    ranks_->connect({.rank = 0, .size = 1, .host = "here", .job = "one rank"});
    on_device_ = ranks_->device_collectives();
    ASSERT_NE(on_device_, nullptr);
    std::iota(values_.begin(), values_.end(), 1.0f);
  }

  // A collective of one rank gives what it was given.
  void expect_copies(const std::function<void(float* in, float* out)>& enqueue) {
    const std::size_t bytes = values_.size() * sizeof(float);
    const DeviceMemory in(bytes, "a test's input"), out(bytes, "a test's output");
    auto* const from = reinterpret_cast<float*>(in.data());
    auto* const to = reinterpret_cast<float*>(out.data());
    const auto fill = [&] {
      check(cudaMemcpyAsync(in.data(), values_.data(), bytes, cudaMemcpyHostToDevice, *stream_),
            "a test's input");
      check(cudaMemsetAsync(out.data(), 0, bytes, *stream_), "a test's output");
    };
    const auto expect = [&](const char* way) {
      std::vector<float> found(values_.size());
      check(cudaMemcpyAsync(found.data(), out.data(), bytes, cudaMemcpyDeviceToHost, *stream_),
            "a test's output");
      on_device_->wait([&] { finish(*stream_, "a test's collective"); });
      EXPECT_EQ(found, values_) << way;
    };
    fill();
    enqueue(from, to);
    expect("plain");
    Recording recording;
    {
      Capture capture(*stream_);
      enqueue(from, to);
      recording = capture.finish();
    }
    for (int i = 0; i < 2; ++i) {
      fill();
      recording.launch(*stream_);
      expect("replayed");
    }
  }

  Registry registry_{{FTRAIN_PLUGINS}};
  std::optional<Stream> stream_;
  std::unique_ptr<Communicator> ranks_;
  DeviceCollectives* on_device_ = nullptr;
  std::vector<float> values_ = std::vector<float>(100'003);
};

TEST_F(NcclOnGpu, DoesEachCollectivePlainAndCaptured) {
  const auto count = static_cast<std::int64_t>(values_.size());
  const std::size_t bytes = values_.size() * sizeof(float);
  const auto copy = [&](const float* in, float* out) {
    check(cudaMemcpyAsync(out, in, bytes, cudaMemcpyDeviceToDevice, *stream_), "a test's copy");
  };
  expect_copies([&](float* in, float* out) { on_device_->all_gather(in, out, bytes, *stream_); });
  expect_copies([&](float* in, float* out) {
    on_device_->reduce_scatter(in, out, count, DType::f32, *stream_);
  });
  expect_copies([&](float* in, float* out) {
    copy(in, out);
    on_device_->broadcast(out, bytes, 0, *stream_);
  });
  expect_copies([&](float* in, float* out) {
    copy(in, out);
    on_device_->begin_group();
    on_device_->all_reduce(out, 1000, DType::f32, Reduction::sum, *stream_);
    on_device_->all_reduce(out + 1000, count - 1000, DType::f32, Reduction::max, *stream_);
    on_device_->end_group();
  });
}

TEST_F(NcclOnGpu, StaysEndedOnceItWas) {
  const DeviceMemory memory(4096, "a test's tensor");
  on_device_->all_reduce(memory.data(), 1024, DType::f32, Reduction::sum, *stream_);
  on_device_->wait([&] { finish(*stream_, "a test's collective"); });
  ranks_->abort("the disk is full");
  const auto said = [&](const std::function<void()>& call) -> std::string {
    try {
      call();
    } catch (const CommunicationError& error) {
      return error.what();
    }
    return "nothing";
  };
  for (const std::string& text :
       {said([&] { on_device_->wait([&] { finish(*stream_, "a test's collective"); }); }),
        said([&] { on_device_->broadcast(memory.data(), 64, 0, *stream_); })}) {
    EXPECT_THAT(text, testing::AllOf(testing::HasSubstr("the disk is full"),
                                     testing::HasSubstr("all_reduce of 4096 bytes")));
  }
}

}  // namespace
}  // namespace ftrain::cuda
