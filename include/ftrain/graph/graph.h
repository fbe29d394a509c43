// The static graph of a training or evaluation step.
//
// Invariants:
//  - Nodes stand in execution order: a node's inputs were emitted before it, and a node that writes
//    a state is executed where it stands, between the reads before and the reads after it.
//  - Shapes are static and inferred as a node is emitted; an error in them is thrown there.
//  - Nodes live in a deque: a vjp emits into the graph that it walks, and nothing moves.
// Ownership: a Value is a handle and does not keep its graph alive. Threads: one at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/base/shape.h"
#include "ftrain/graph/attributes.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

class Graph;
struct Node;
struct OpDef;

class FTRAIN_API Value {
 public:
  Value() = default;
  Value(Graph* graph, std::int32_t node, std::int32_t output)
      : graph_(graph), node_(node), output_(output) {}

  bool valid() const { return graph_ != nullptr; }
  explicit operator bool() const { return valid(); }
  Graph& graph() const { return *graph_; }
  const Node& node() const;
  std::int32_t node_index() const { return node_; }
  std::int32_t output() const { return output_; }
  const TensorType& type() const;
  const Shape& shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  // Another output of the same node.
  Value sibling(std::int32_t output) const { return {graph_, node_, output}; }
  bool operator==(const Value&) const = default;

 private:
  Graph* graph_ = nullptr;
  std::int32_t node_ = -1;
  std::int32_t output_ = 0;
};

// The part of a step that a node belongs to.
enum class Phase : std::uint8_t { forward, backward, update };

// Where in a step a node stands: set by whoever emits it, kept by every pass.
struct Stage {
  Phase phase = Phase::forward;
  // A step takes its samples in micro-batches, one behind the other.
  std::int32_t micro_batch = 0;
  bool operator==(const Stage&) const = default;
};

struct Node {
  const OpDef* op = nullptr;
  std::vector<Value> inputs;
  Attributes attributes;
  std::vector<TensorType> outputs;
  std::string name;  // for people: "layer1.0.conv1"; may repeat
  std::int32_t index = 0;
  Stage stage = {};

  const TensorType& input(std::size_t i) const { return inputs[i].type(); }
};

// How a state's first value is made. Element i of the logical tensor depends on (seed, the state's
// name, i) alone, so shards on any number of ranks start alike.
struct Initializer {
  enum class Kind { constant, normal, uniform } kind = Kind::constant;
  double a = 0;  // constant: the value; normal: mean; uniform: low
  double b = 0;  // normal: standard deviation; uniform: high
};

// A tensor that outlives the step.
struct StateSpec {
  enum class Role { parameter, statistic, slot } role = Role::parameter;
  std::string name;  // unique in the graph; parameters bear arcface_torch's names
  TensorType type;   // of this rank's part
  Initializer initializer = {};
  // Where a device with memory of its own keeps it; `host` for what is too large for the device.
  enum class Memory { device, host } memory = Memory::device;
  bool trainable = true;  // parameters only: a frozen one has no gradient, no update, no decay
  // Rows [first_row, first_row + shape[0]) of a logical tensor of `rows` rows; rows = 0: not
  // sharded.
  std::int64_t first_row = 0, rows = 0;
};

class FTRAIN_API Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Appends a node. Infers its outputs (ShapeError names the op, the rule, what came). Returns the
  // first output; a node with no output still returns its handle.
  Value emit(const OpDef& op, std::vector<Value> inputs, Attributes attributes = {},
             std::string name = {});

  // The stage of what is emitted from now on.
  const Stage& stage() const { return stage_; }
  void set_stage(const Stage& stage) { stage_ = stage; }

  Value input(std::string name, TensorType type);  // written by the host before each run
  Value state(StateSpec spec);
  void fetch(std::string name, Value value);  // readable after each run

  const Node& node(std::int32_t index) const { return nodes_[static_cast<std::size_t>(index)]; }
  Node& node(std::int32_t index) { return nodes_[static_cast<std::size_t>(index)]; }
  std::int32_t size() const { return static_cast<std::int32_t>(nodes_.size()); }

  struct Named {
    std::string name;
    Value value;
  };
  struct State {
    StateSpec spec;
    Value value;
  };
  const std::vector<Named>& inputs() const { return inputs_; }
  const std::vector<State>& states() const { return states_; }
  const std::vector<Named>& fetches() const { return fetches_; }
  // The state that this value is, or nullptr.
  const State* state_of(Value value) const;
  // The state of that name; invalid when there is none.
  Value find_state(std::string_view name) const;
  // What a state's physical order is to be (set by a device's rewrite).
  void set_layout(Value state, std::string layout);

  // The steps as text, one node a line: "%12 = conv2d(%3, layer1.0.conv1.weight) stride=1 ...".
  std::string text() const;

 private:
  std::deque<Node> nodes_;
  Stage stage_;
  std::vector<Named> inputs_, fetches_;
  std::vector<State> states_;
};

// While it lives, what is emitted belongs to another phase.
class EmitIn {
 public:
  EmitIn(Graph& graph, Phase phase) : graph_(graph), before_(graph.stage()) {
    graph_.set_stage({phase, before_.micro_batch});
  }
  ~EmitIn() { graph_.set_stage(before_); }
  EmitIn(const EmitIn&) = delete;
  EmitIn& operator=(const EmitIn&) = delete;

 private:
  Graph& graph_;
  Stage before_;
};

}  // namespace ftrain
