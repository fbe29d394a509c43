// The store of states in parts, and the working memory that programs share.
#include <gtest/gtest.h>

#include <numeric>

#include "ftrain/base/error.h"
#include "plugins/devices/cpu/device/memory.h"
#include "plugins/devices/cpu/device/store.h"
#include "plugins/devices/cpu/step.h"

namespace ftrain::cpu {
namespace {

TEST(Memory, TouchingKeepsWhatIsThere) {
  Memory memory((std::size_t{5} << 20) + 12345, "a test");
  memory.data()[0] = 3;
  memory.data()[memory.bytes() - 1] = 4;
  memory.touch(2);
  EXPECT_EQ(memory.data()[0], 3);
  EXPECT_EQ(memory.data()[memory.bytes() - 1], 4);
  EXPECT_EQ(memory.data()[12345], 0);
}

class StoreParts : public testing::TestWithParam<const char*> {};

TEST_P(StoreParts, AreWhatTheWholeIs) {
  Graph graph;
  const Shape shape{32, 16, 3, 3};
  const Value value = graph.state({.name = "w", .type = {DType::f32, shape}});
  graph.set_layout(value, GetParam());
  Store store;
  store.add(graph.states());
  const auto count = static_cast<std::size_t>(shape.elements());
  std::vector<float> whole(count), found(count);
  std::iota(whole.begin(), whole.end(), 0.0f);
  for (std::size_t first = 0; first < count; first += 1000) {
    store.write_part("w", first, std::min<std::size_t>(1000, count - first), whole.data() + first);
  }
  store.read("w", found.data());
  EXPECT_EQ(found, whole);
  store.read_part("w", 777, 50, found.data());
  EXPECT_EQ(found[0], 777.0f);
  EXPECT_EQ(found[49], 826.0f);
  store.write_part("w", 0, count, found.data());
  store.read_part("w", 0, 1, whole.data());
  EXPECT_EQ(whole[0], 777.0f);
  EXPECT_THROW(store.read_part("v", 0, 1, whole.data()), DeviceError);
}

INSTANTIATE_TEST_SUITE_P(Layouts, StoreParts, testing::Values("", "ABcd16b16a", "ABcd8b8a"));

TEST(Store, ProgramsThatFitShareWorkingMemory) {
  Store store;
  char* const large = store.workspace(1 << 20);
  EXPECT_EQ(store.workspace(1 << 10), large);
  EXPECT_NE(store.workspace(1 << 21), large);
  const int a = 0, b = 0;
  EXPECT_TRUE(store.enter(large, &a));
  EXPECT_FALSE(store.enter(large, &a));
  EXPECT_TRUE(store.enter(large, &b));
  EXPECT_TRUE(store.enter(large, &a));
}

// A training step between two evaluations, in one arena: neither disturbs the other.
TEST(Store, ProgramsTakeTurns) {
  const auto device = open_device();
  Graph training, forward;
  build_step(training, true);
  build_step(forward, false);
  const auto store = device->make_store();
  const auto step =
      device->compile(device->prepare(training, store.get(), nullptr), *store, nullptr);
  const auto evaluate =
      device->compile(device->prepare(forward, store.get(), nullptr), *store, nullptr);
  fill_states(*store);
  fill_inputs(*step);
  fill_inputs(*evaluate);
  const auto embedding = [&] {
    evaluate->run();
    return results(*evaluate, *store).at("embedding");
  };
  const std::vector<float> before = embedding();
  step->run();
  const std::vector<float> trained = embedding();
  EXPECT_NE(trained, before);
  fill_states(*store);
  evaluate->refresh();
  EXPECT_EQ(embedding(), before);
  step->run();
  evaluate->refresh();
  EXPECT_EQ(embedding(), trained);
}

}  // namespace
}  // namespace ftrain::cpu
