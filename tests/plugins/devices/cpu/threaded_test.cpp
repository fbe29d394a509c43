// The threaded kernels that draw random numbers or update parameters, against the plain loops.
#include <gtest/gtest.h>

#include "ftrain/model/optimizer.h"
#include "ftrain/ops.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/graph_runner.h"

namespace ftrain::cpu {
namespace {

const KernelList& kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_reference_kernels(made);
    add_simd_kernels(made);
    return made;
  }();
  return list;
}

TEST(ThreadedOps, DropoutDrawsAsThePlainLoop) {
  const Shape shape{4, 16, 5, 3};
  const auto values = random_values(static_cast<std::size_t>(shape.elements()), 3);
  const std::int64_t step = 11;
  const auto dropped = [&](const std::string& layout, const char* kernel) {
    Graph graph;
    const Value x = graph.input("x", {DType::f32, shape, layout});
    const Value steps = graph.input("step", {DType::i64, Shape{}});
    const Value y = ops::dropout(x, 0.4, steps, 5, 8);
    GraphRunner runner(graph, kernels(), {.threads = 2, .isa = {}}, kernel);
    runner.set(x, values);
    runner.set_bytes(steps, &step);
    runner.run();
    return runner.get(y);
  };
  const auto expected = dropped("", "plain");
  EXPECT_GT(std::count(expected.begin(), expected.end(), 0.0f), 50);
  for (const char* layout : {"", "aBcd8b", "aBcd16b"}) {
    EXPECT_EQ(dropped(layout, "threads"), expected) << layout;
  }
}

TEST(ThreadedOps, ImagesAreNormalizedAndFlippedAsByThePlainLoop) {
  const Shape shape{8, 6, 5, 3};
  std::vector<std::uint8_t> pixels;
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    pixels.push_back(static_cast<std::uint8_t>(i * 37 % 256));
  }
  const auto normalized = [&](const char* kernel, double flip) {
    Graph graph;
    const Value image = graph.input("image", {DType::u8, shape});
    const Value step = graph.input("step", {DType::i64, Shape{}});
    const Value y = ops::image_normalize(image, step, {.flip = flip, .seed = 9, .first_sample = 3});
    GraphRunner runner(graph, kernels(), {.threads = 2, .isa = {}}, kernel);
    const std::int64_t now = 4;
    runner.set_bytes(image, pixels.data());
    runner.set_bytes(step, &now);
    runner.run();
    return runner.get(y);
  };
  const auto expected = normalized("plain", 0.5);
  EXPECT_NE(expected, normalized("plain", 0));
  EXPECT_NE(expected, normalized("plain", 1));
  EXPECT_EQ(normalized("threads", 0.5), expected);
}

// velocity <- 0.9 velocity + coefficient gradient + decay parameter; parameter -= rate velocity
struct Momentum : Update {
  Momentum() {
    f32 = [](const void*, float* parameter, float* const* slots, const float* gradient,
             std::int64_t count, const UpdateScalars& s) {
      for (std::int64_t i = 0; i < count; ++i) {
        slots[0][i] = static_cast<float>(0.9 * slots[0][i] + s.coefficient * gradient[i] +
                                         s.decay * parameter[i]);
        parameter[i] -= static_cast<float>(s.rate * slots[0][i]);
      }
    };
  }
  std::string text() const override { return "momentum"; }
};

TEST(ThreadedOps, UpdatesEqualThePlainLoopAndObeyOk) {
  const Shape shape{37, 1000};
  const auto count = static_cast<std::size_t>(shape.elements());
  const auto updated = [&](const char* kernel, bool clipped, float ok_value) {
    Graph graph;
    const Value w = graph.state({.name = "w", .type = {DType::f32, shape}});
    const Value v = graph.state({.name = "v", .type = {DType::f32, shape}});
    const Value gradient = graph.input("gradient", {DType::f32, shape});
    const Value rate = graph.input("rate", {DType::f32, Shape{}});
    const Value ok = graph.input("ok", {DType::f32, Shape{}});
    const Value clip = graph.input("clip", {DType::f32, Shape{}});
    ops::optimizer_update(w, {v}, gradient, rate, clipped ? clip : Value(), ok, {},
                          std::make_shared<Momentum>(), 2.0, 0.01);
    GraphRunner runner(graph, kernels(), {.threads = 2, .isa = {}}, kernel);
    runner.set(w, random_values(count, 1));
    runner.set(v, random_values(count, 2));
    runner.set(gradient, random_values(count, 3));
    runner.set(rate, {0.1f});
    runner.set(ok, {ok_value});
    runner.set(clip, {0.25f});
    runner.run();
    return std::pair(runner.get(w), runner.get(v));
  };
  EXPECT_EQ(updated("simd", true, 1), updated("plain", true, 1));
  EXPECT_EQ(updated("simd", false, 1), updated("plain", false, 1));
  EXPECT_NE(updated("simd", true, 1), updated("simd", false, 1));
  EXPECT_EQ(updated("simd", true, 0).first, random_values(count, 1));
}

}  // namespace
}  // namespace ftrain::cpu
