// Collectives in the plan of a program: where they stand, what memory they keep, what they move.
#include <gtest/gtest.h>

#include <algorithm>

#include "ftrain/graph/opdef.h"
#include "overlap.h"

namespace ftrain::cpu {
namespace {

struct Span {
  std::size_t begin, end;
};
std::vector<Span> blocks_of(const Program& program, const Node& node, bool inputs) {
  std::vector<Span> spans;
  const auto add = [&](const Block& block, std::size_t bytes) {
    if (block.home == Block::Home::arena) spans.push_back({block.offset, block.offset + bytes});
  };
  const auto n = static_cast<std::size_t>(node.index);
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    add(program.plan.values[n][o], node.outputs[o].bytes());
  }
  add(program.plan.scratch[n], program.plan.scratch[n].bytes);
  if (!inputs) return spans;
  for (const Value& input : node.inputs) {
    if (!input.valid()) continue;
    add(program.plan.values[static_cast<std::size_t>(input.node_index())]
                           [static_cast<std::size_t>(input.output())],
        input.type().bytes());
  }
  return spans;
}

// From a collective to the first kernel that uses what it makes nothing is made in its memory.
TEST(Overlap, TheMemoryOfABusyCollectiveIsNobodyElses) {
  const auto graph = training_step(iresnet, 2, 48, 2, 1 << 20);
  SlowTwin twin;
  const Program program = open_overlapping(true)->prepare(*graph, nullptr, &twin);
  const Graph& g = *program.graph;
  int collectives = 0;
  std::int64_t beside = 0;
  for (std::int32_t i = 0; i < g.size(); ++i) {
    if (!is_collective(g.node(i))) continue;
    ++collectives;
    const std::vector<Span> mine = blocks_of(program, g.node(i), true);
    for (std::int32_t k = i + 1; k < g.size(); ++k) {
      const Node& node = g.node(k);
      if (is_collective(node) || node.op->view || node.op->leaf) continue;
      const bool user = std::any_of(node.inputs.begin(), node.inputs.end(), [&](Value input) {
        // Waiting for a later collective is waiting for this one.
        return input.valid() && is_collective(input.node()) && input.node_index() >= i;
      });
      if (user) break;
      ++beside;
      for (const Span& theirs : blocks_of(program, node, false)) {
        for (const Span& span : mine) {
          ASSERT_TRUE(theirs.end <= span.begin || span.end <= theirs.begin)
              << "%" << k << " " << node.op->name << " in the memory of %" << i;
        }
      }
    }
  }
  EXPECT_GE(collectives, 10);
  EXPECT_GE(beside, 500);
}

// The gradients of the last layers are summed while those of the first are still to be made.
TEST(Overlap, TheFirstBucketStartsEarlyInTheBackwardWalk) {
  const auto graph = training_step(iresnet, 2, 112, 2, 2 << 20);
  SlowTwin twin;
  const Program program = open_overlapping(true)->prepare(*graph, nullptr, &twin);
  const Graph& g = *program.graph;
  const auto work = [](const Node& node) {
    const bool backward =
        node.op->name == "conv2d_input_grad" || node.op->name == "conv2d_weight_grad";
    return backward ? cost_of(node).flops : 0;
  };
  double all = 0, done = 0;
  for (std::int32_t i = 0; i < g.size(); ++i) all += work(g.node(i));
  std::vector<double> behind;  // the share of the backward walk that is behind each bucket's start
  for (std::int32_t i = 0; i < g.size(); ++i) {
    done += work(g.node(i));
    if (g.node(i).op->name == "all_reduce" && g.node(i).input(0).shape.rank() > 0) {
      behind.push_back(1 - done / all);
    }
  }
  ASSERT_GE(behind.size(), 8u);
  EXPECT_GT(behind.front(), 0.9);
  EXPECT_GT(behind[behind.size() / 2], 0.5);
}

// Large tensors are summed where they lie: a gradient takes no second place.
TEST(Overlap, LargeTensorsAreSummedInPlace) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {300000}});
  const Value kept = ops::scale(x, 4);
  const std::vector<Value> sums =
      ops::all_reduce_sum({ops::scale(x, 2), kept, ops::scale(x, 3)}, 2);
  graph.fetch("a", sums[0]);
  graph.fetch("b", ops::mul(sums[1], kept));
  graph.fetch("c", sums[2]);
  SlowTwin twin;
  const auto device = open_overlapping(true);
  const auto store = device->make_store();
  const auto executable =
      device->compile(device->prepare(graph, store.get(), &twin), *store, &twin);
  const Program& program = executable->program();
  for (std::int32_t i = 0; i < program.graph->size(); ++i) {
    const Node& node = program.graph->node(i);
    if (!is_collective(node)) continue;
    for (std::size_t k = 0; k < 3; ++k) {
      const Value input = node.inputs[k];
      const Block& from = program.plan.values[static_cast<std::size_t>(input.node_index())][0];
      EXPECT_EQ(from.offset == program.plan.values[static_cast<std::size_t>(i)][k].offset, k != 1);
    }
  }
  fill_inputs(*executable);
  executable->run();
  const Tensors found = results(*executable, *store);
  const std::vector<float> vx = noise(300000, seed_of("x"));
  for (std::size_t i = 0; i < vx.size(); i += 1000) {
    ASSERT_EQ(found.at("a")[i], vx[i] * 2 * 2);
    ASSERT_EQ(found.at("b")[i], (vx[i] * 4 * 2) * (vx[i] * 4));
    ASSERT_EQ(found.at("c")[i], vx[i] * 3 * 2);
  }
}

// ---- bf16 between ranks

TEST(Collectives, GatherInBf16RoundsOnceAndTakesHalfTheBytes) {
  Graph graph;
  const Value x = graph.input("x", {DType::f32, {33, 5}});
  graph.fetch("rounded", ops::all_gather(x, 2, DType::bf16));
  graph.fetch("whole", ops::all_gather(x, 2, DType::f32));
  const auto device = open_overlapping(true);
  const auto store = device->make_store();
  SlowTwin twin;
  const auto executable =
      device->compile(device->prepare(graph, store.get(), &twin), *store, &twin);
  std::vector<float> values = noise(33 * 5, 3);
  values[0] = 1 + 1.0f / 256;  // a tie, to even: down
  values[1] = 1 + 3.0f / 256;  // a tie, to even: up
  values[2] = -3.3895314e38f;  // rounds to the largest
  values[3] = 1e-41f;          // denormal
  executable->write("x", values.data());
  executable->run();
  const Tensors found = results(*executable, *store);
  for (std::size_t i = 0; i < 2 * values.size(); ++i) {
    const float value = values[i % values.size()];
    ASSERT_EQ(found.at("rounded")[i], to_f32(to_bf16(value))) << i;
    ASSERT_EQ(found.at("whole")[i], value);
  }
  EXPECT_EQ(found.at("rounded")[0], 1.0f);
  EXPECT_EQ(found.at("rounded")[1], 1 + 4.0f / 256);
  int changed = 0;
  for (std::size_t i = 0; i < values.size(); ++i) changed += found.at("rounded")[i] != values[i];
  EXPECT_GT(changed, 100);

  Graph alone;
  const Value y = alone.input("y", {DType::f32, {33, 5}});
  alone.fetch("rounded", ops::all_gather(y, 2, DType::bf16));
  const auto again = device->compile(device->prepare(alone, nullptr, &twin), *store, &twin);
  fill_inputs(*again);
  again->run();
  EXPECT_EQ(twin.gathered_bytes, 33 * 5 * sizeof(BF16));
}

TEST(Collectives, GatherInBf16IsForF32AndItsGradientStaysWhole) {
  Graph graph;
  const Value wide = graph.input("wide", {DType::f64, {4, 2}});
  EXPECT_THROW(ops::all_gather(wide, 2, DType::bf16), ShapeError);
  const Value narrow = graph.input("narrow", {DType::bf16, {4, 2}});
  EXPECT_FALSE(ops::all_gather(narrow, 2, DType::bf16).node().attributes.has("wire"));
  const Value x = graph.input("x", {DType::f32, {4, 2}});
  EXPECT_THROW(ops::all_gather(x, 2, DType::f16), ShapeError);
  EXPECT_EQ(ops::all_gather(x, 1, DType::bf16), x);
  const Value all = ops::all_gather(x, 2, DType::bf16);
  EXPECT_EQ(all.type(), (TensorType{DType::f32, {8, 2}}));
  const Seed seed{all, graph.input("dy", all.type())};
  const Value gradient = gradients(graph, {&seed, 1}, std::vector<Value>{x})[0];
  EXPECT_EQ(gradient.node().op->name, "reduce_scatter");
  EXPECT_EQ(gradient.dtype(), DType::f32);
}

}  // namespace
}  // namespace ftrain::cpu
