// The memory plan against brute force: every node writes a mark over its outputs' bytes and finds
// its inputs' marks untouched.
#include "ftrain/device/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>

#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

// Plays the graph on the plan's arena, one mark a byte. Values are named by their root (what a view
// views), and an output in the place of an input renames its bytes.
class Player {
 public:
  Player(const Graph& graph, const Plan& plan)
      : graph_(graph), plan_(plan), arena_(plan.arena_bytes, -1) {}

  void play() {
    for (std::int32_t i = 0; i < graph_.size(); ++i) {
      const Node& node = graph_.node(i);
      for (const Value& input : node.inputs) {
        if (input.valid()) expect_whole(input, i);
      }
      if (node.op->leaf || node.op->view) continue;
      const Block& scratch = plan_.scratch[static_cast<std::size_t>(i)];
      for (std::size_t o = 0; o < node.outputs.size(); ++o) {
        const Value output(const_cast<Graph*>(&graph_), i, static_cast<std::int32_t>(o));
        EXPECT_GE(block(output).bytes, node.outputs[o].bytes());
        fill(block(output), mark(output));
      }
      // All outputs and the scratch are alive together.
      fill(scratch, next_++);
      for (std::size_t o = 0; o < node.outputs.size(); ++o) {
        expect_whole({const_cast<Graph*>(&graph_), i, static_cast<std::int32_t>(o)}, i);
      }
    }
    for (const Graph::Named& fetch : graph_.fetches()) expect_whole(fetch.value, graph_.size());
  }

 private:
  static Value root(Value value) {
    while (value.node().op->view) value = value.node().inputs[0];
    return value;
  }
  const Block& block(Value value) const {
    return plan_.values[static_cast<std::size_t>(value.node_index())]
                       [static_cast<std::size_t>(value.output())];
  }
  std::int64_t mark(Value value) {
    const auto [at, fresh] = marks_.try_emplace({value.node_index(), value.output()}, next_);
    if (fresh) ++next_;
    return at->second;
  }
  void fill(const Block& b, std::int64_t with) {
    if (b.home != Block::Home::arena) return;
    ASSERT_LE(b.offset + b.bytes, arena_.size());
    std::fill_n(arena_.begin() + static_cast<std::ptrdiff_t>(b.offset), b.bytes, with);
  }
  void expect_whole(Value value, std::int32_t at) {
    const Block& b = block(value);
    ASSERT_NE(b.home, Block::Home::none);
    if (b.home != Block::Home::arena) return;
    const std::int64_t want = mark(root(value));
    const auto begin = arena_.begin() + static_cast<std::ptrdiff_t>(b.offset);
    EXPECT_EQ(std::count(begin, begin + static_cast<std::ptrdiff_t>(b.bytes), want),
              static_cast<std::ptrdiff_t>(b.bytes))
        << "%" << value.node_index() << "." << value.output() << " is overwritten before node "
        << at;
  }

  const Graph& graph_;
  const Plan& plan_;
  std::vector<std::int64_t> arena_;
  std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> marks_;
  std::int64_t next_ = 0;
};

// A graph of random ops over vectors of random sizes: unary and binary ones, views, two outputs.
void grow(Graph& g, std::mt19937& random, int nodes) {
  const auto pick = [&](std::size_t n) { return random() % n; };
  std::vector<Value> values;
  for (int i = 0; i < 3; ++i) {
    const auto rows = static_cast<std::int64_t>(1 + pick(40));
    values.push_back(g.input("x" + std::to_string(i), {DType::f32, {rows, 4}}));
  }
  values.push_back(g.state({.name = "w", .type = {DType::f32, {7, 4}}}));
  for (int i = 0; i < nodes; ++i) {
    const Value x = values[pick(values.size())];
    switch (pick(6)) {
      case 0:
        values.push_back(ops::relu(x));
        break;
      case 1:
        values.push_back(ops::add(x, x));
        break;
      case 2:
        values.push_back(ops::reshape(x, {x.shape().elements() / 4, 4}));
        values.push_back(ops::reshape(values.back(), x.shape()));
        break;
      case 3: {
        for (const Value other : values) {
          if (other.shape() == x.shape() && other != x) {
            values.push_back(ops::mul(x, other));
            break;
          }
        }
        break;
      }
      case 4: {
        const auto [rows, norms] = ops::normalize(x);
        values.push_back(rows);
        if (pick(2)) g.fetch("n", norms);
        break;
      }
      default:
        values.push_back(ops::matmul(x, values[pick(values.size())], false, true));
    }
    if (values.back().shape()[1] != 4) values.pop_back();  // the product stays, unused
    if (pick(8) == 0) g.fetch("f", values[pick(values.size())]);
  }
  g.fetch("last", values.back());
}

int first_or_second(const Node& node) {
  if (node.op->name == "relu" || node.op->name == "add") return 0;
  return node.op->name == "mul" ? node.index % 2 : -1;
}

TEST(Plan, NoTwoLiveBlocksOverlapOnRandomGraphs) {
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Graph g;
    grow(g, random, 60);
    PlanRequest request;
    if (seed % 3 != 0) request.overwrites = first_or_second;
    if (seed % 2 == 0) {
      request.scratch = [](const Node& node) {
        return static_cast<std::size_t>(node.index % 3 * 100);
      };
    }
    const Plan plan = plan_memory(g, request);
    Player(g, plan).play();
    EXPECT_LE(plan.arena_floor, plan.arena_bytes);
    for (const auto& node : plan.values) {
      for (const Block& block : node) EXPECT_EQ(block.offset % request.alignment, 0u);
    }
    if (HasFailure()) break;
  }
}

PlanRequest in_first_input() {
  PlanRequest request;
  request.overwrites = [](const Node&) { return 0; };
  return request;
}

Graph& chain(Graph& g, int length) {
  Value x = g.input("x", {DType::f32, {1024}});
  for (int i = 0; i < length; ++i) x = ops::relu(x);
  g.fetch("y", x);
  return g;
}

TEST(Plan, AChainNeedsTwoBlocksAndInPlaceOne) {
  Graph g;
  chain(g, 10);
  const Plan apart = plan_memory(g, {});
  EXPECT_EQ(apart.arena_bytes, 2 * 4096u);
  EXPECT_EQ(apart.arena_floor, 2 * 4096u);
  const Plan in_place = plan_memory(g, in_first_input());
  EXPECT_EQ(in_place.arena_bytes, 4096u);  // the input is resident and is not overwritten
  EXPECT_EQ(in_place.resident_bytes, 4096u);
  EXPECT_EQ(in_place.state_bytes, 0u);
}

TEST(Plan, AValueThatIsStillNeededIsNotOverwritten) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {1024}});
  const Value a = ops::relu(x);
  const Value view = ops::reshape(a, {32, 32});
  const Value b = ops::relu(a);
  g.fetch("y", ops::add(ops::reshape(b, {32, 32}), view));
  const Plan plan = plan_memory(g, in_first_input());
  EXPECT_EQ(plan.values[1][0].offset, plan.values[2][0].offset);  // a view shares
  EXPECT_NE(plan.values[1][0].offset, plan.values[3][0].offset);
  EXPECT_EQ(plan.arena_bytes, 2 * 4096u);
}

TEST(Plan, AnInputUsedTwiceByANodeIsNotTakenOver) {
  Graph g;
  const Value a = ops::relu(g.input("x", {DType::f32, {1024}}));
  const Value b = ops::add(a, a);
  g.fetch("y", b);
  const Plan plan = plan_memory(g, in_first_input());
  EXPECT_NE(plan.values[1][0].offset, plan.values[2][0].offset);
}

bool overlapping(const Block& a, const Block& b) {
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

// A node that is at work until another one: all that it touches stays as long.
TEST(Plan, ABusyNodeKeepsItsMemory) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {1024}});
  const Value a = ops::relu(x);                      // 1
  const Value sum = ops::all_reduce_sum(a, 2);       // 2: until 6
  Value y = ops::relu(x);                            // 3
  for (int i = 0; i < 2; ++i) y = ops::scale(y, 2);  // 4, 5
  g.fetch("y", ops::add(y, sum));                    // 6
  PlanRequest request;
  request.scratch = [](const Node& node) { return std::size_t{is_collective(node) ? 4096u : 0u}; };
  const auto shared = [&](const Plan& plan) {
    bool any = false;
    for (std::size_t k = 3; k < 6; ++k) {
      for (const Block& mine : {plan.values[1][0], plan.values[2][0], plan.scratch[2]}) {
        any = any || overlapping(mine, plan.values[k][0]);
      }
    }
    return any;
  };
  EXPECT_TRUE(shared(plan_memory(g, request)));
  request.busy_until = [](const Node& node) { return is_collective(node) ? 6 : node.index; };
  const Plan plan = plan_memory(g, request);
  EXPECT_FALSE(shared(plan));
  EXPECT_EQ(plan.arena_bytes, 5 * 4096u);  // its three, and a step from one block to the next
  // In place it has one block fewer, and no other node takes over what it is at work with.
  request.overwrites = [](const Node& node) { return is_collective(node) ? -2 : 0; };
  const Plan in_place = plan_memory(g, request);
  EXPECT_EQ(in_place.values[1][0].offset, in_place.values[2][0].offset);
  EXPECT_FALSE(shared(in_place));
  EXPECT_EQ(in_place.arena_bytes, 3 * 4096u);
}

TEST(Plan, EachOutputMayTakeOverTheInputOfItsNumber) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {1024}});
  const Value a = ops::relu(x), b = ops::relu(a), c = ops::relu(b);         // 1, 2, 3
  const std::vector<Value> sums = ops::all_reduce_sum({a, b, c, x, c}, 2);  // 4
  g.fetch("y", ops::add(b, ops::add(sums[0], sums[1])));
  for (const Value& sum : sums) g.fetch("sum", sum);
  PlanRequest request;
  request.overwrites = [](const Node& node) { return is_collective(node) ? -2 : -1; };
  const Plan plan = plan_memory(g, request);
  EXPECT_EQ(plan.values[4][0].offset, plan.values[1][0].offset);
  EXPECT_NE(plan.values[4][1].offset, plan.values[2][0].offset);  // b is needed after it
  EXPECT_NE(plan.values[4][2].offset, plan.values[3][0].offset);  // c is an input twice
  EXPECT_EQ(plan.values[4][3].home, Block::Home::arena);          // x is resident
  for (std::size_t i = 0; i < 5; ++i) {
    for (std::size_t k = 0; k < i; ++k) {
      EXPECT_FALSE(overlapping(plan.values[4][i], plan.values[4][k]));
    }
  }
}

TEST(Plan, CountsResidentBytesAndFindsThePeak) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {16, 4}});
  const Value w = g.state({.name = "w", .type = {DType::f32, {5, 4}}});
  const Value small = ops::matmul(x, w, false, true);         // 2: 320 bytes
  const Value big = ops::matmul(small, small, false, true);   // 3: 1024 bytes
  const Value back = ops::matmul(big, ops::scale(small, 1));  // 4, 5
  g.fetch("y", back);
  const Plan plan = plan_memory(g, {});
  EXPECT_EQ(plan.resident_bytes, 256u + 128u);  // w's 80 bytes take two lines
  EXPECT_EQ(plan.state_bytes, 128u);
  EXPECT_EQ(plan.values[0][0].home, Block::Home::resident);
  EXPECT_EQ(plan.values[1][0].home, Block::Home::resident);
  // big, the scaled copy and the result, or small in the result's stead.
  EXPECT_EQ(plan.arena_floor, 1024u + 320u + 320u);
  EXPECT_EQ(plan.peak_node, 4);
}

TEST(Plan, CountsStatesOfTheHostsMemoryApart) {
  Graph g;
  const Value x = g.input("x", {DType::f32, {16, 4}});
  const Value w = g.state({.name = "w", .type = {DType::f32, {5, 4}}});
  const Value large = g.state(
      {.name = "large", .type = {DType::f32, {1000, 4}}, .memory = StateSpec::Memory::host});
  g.fetch("y", ops::matmul(ops::matmul(x, w, false, true), ops::slice_rows(large, 0, 5)));
  const Plan one_memory = plan_memory(g, {});
  EXPECT_EQ(one_memory.resident_bytes, 256u + 128u + 16000u);
  EXPECT_EQ(one_memory.state_bytes, 128u + 16000u);
  EXPECT_EQ(one_memory.host_bytes, 0u);
  EXPECT_EQ(one_memory.values[2][0].home, Block::Home::resident);
  PlanRequest request;
  request.host_apart = true;
  const Plan two = plan_memory(g, request);
  EXPECT_EQ(two.resident_bytes, 256u + 128u);
  EXPECT_EQ(two.state_bytes, 128u);
  EXPECT_EQ(two.host_bytes, 16000u);
  EXPECT_EQ(two.values[1][0].home, Block::Home::resident);
  EXPECT_EQ(two.values[2][0].home, Block::Home::host);
}

}  // namespace
}  // namespace ftrain
