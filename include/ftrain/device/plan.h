// Where every value lies: resident memory for what outlives the step, one arena for the rest.
//
// The plan is made before anything runs and is what the process uses: an Executable allocates
// `resident_bytes` and `arena_bytes` and nothing else.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain {

struct Block {
  enum class Home { none, resident, arena, host } home = Home::none;
  std::size_t offset = 0, bytes = 0;
};

struct PlanRequest {
  std::size_t alignment = 64;
  // Scratch bytes of a node; alive during that node alone.
  std::function<std::size_t(const Node&)> scratch;
  // The input whose storage output 0 may take over when it dies here (element i of the output needs
  // element i of that input alone), or -1; -2: each output may take over the input of its number.
  std::function<int(const Node&)> overwrites;
  // Whether a node's outputs are kept from run to run: their storage is theirs alone.
  std::function<bool(const Node&)> keep = {};
  // The node before which a node is done; its own index: at once. So long its inputs, outputs and
  // scratch stay: a collective beside the kernels behind it. Such nodes work one after another.
  std::function<std::int32_t(const Node&)> busy_until = {};
  // States that ask for the host's memory lie there, apart from the device's own. Otherwise there
  // is one memory, and they are resident like others.
  bool host_apart = false;
};

struct FTRAIN_API Plan {
  // By node, by output. Views share the block of what they view; states and inputs are resident,
  // one block each; fetched values stay to the end of the step.
  std::vector<std::vector<Block>> values;
  std::vector<Block> scratch;      // by node
  std::size_t resident_bytes = 0;  // inputs and states
  std::size_t state_bytes = 0;     // of which states
  std::size_t host_bytes = 0;      // states in the host's memory, not in the two above
  std::size_t arena_bytes = 0;
  std::size_t arena_floor = 0;  // the largest sum of what is alive at once: no plan does with less
  std::int32_t peak_node = -1;  // where that is
};

// Best fit over lifetimes, in the best of several orders.
FTRAIN_API Plan plan_memory(const Graph& graph, const PlanRequest& request);

}  // namespace ftrain
