// An op as data: everything that passes, planners and devices need to know of it.
//
// An OpDef is a constant with static storage; its address is its identity. Third parties define
// theirs in their own libraries and emit them like ours; a device finds kernels by the op's name.
// Nothing outside an op's own files knows the op by name: what a pass needs is a fact here, and a
// fact that an op leaves out has the value that is safe for an op that nobody has heard of.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "ftrain/graph/graph.h"

namespace ftrain {

// Operands of an op as a set: {0, 1}.
class OperandSet {
 public:
  constexpr OperandSet() = default;
  constexpr OperandSet(std::initializer_list<int> operands) {
    for (const int i : operands) bits_ |= std::uint32_t{1} << i;
  }
  constexpr bool contains(std::size_t operand) const {
    return operand < 32 && (bits_ >> operand & 1) != 0;
  }
  constexpr bool empty() const { return bits_ == 0; }

 private:
  std::uint32_t bits_ = 0;
};

// How ranks meet in an op.
enum class Collective : std::uint8_t { none, all_reduce, all_gather, reduce_scatter, broadcast };

// What the backward pass may make again instead of keeping.
enum class Recompute : std::uint8_t {
  costly,  // only where a whole segment of the network is made again
  cheap,   // one pass over memory
  never    // costly to make and small to keep, or cuts a step into micro-batches
};

// Whether activations may be in 16 bits (bf16, f16); infer says what type outputs then have.
struct Narrowing {
  enum class When : std::uint8_t {
    never,     // computes in f32; operands in 16 bits are cast for it
    follows,   // where one of its activations already is in 16 bits
    begins,    // always: its activations are cast
    by_option  // makes 16 bits of something else: its attribute "to" names the type
  } when = When::never;
  OperandSet activations = {};  // images [N, C, H, W]; other operands stay f32
};

// In which physical order a device may keep an op's images and weights.
enum class Ordering : std::uint8_t {
  common,    // one order for all, if a kernel takes it
  separate,  // each operand in its own, output i in that of operand i
  update     // operand 0 is a parameter in any order, which what else is written follows
};

// Which operand is which of a convolution y = w * x, or of one of its gradients.
struct ConvolutionRoles {
  static constexpr int result = -1;  // the op's first output
  int x = 0, weight = 1, y = result;
};

// What a step's time is counted under.
enum class Concern : std::uint8_t { network, class_centers, update };

// What a kernel has to do at least: multiplications and additions as sums are written, and the
// bytes that must move.
struct OpCost {
  double flops = 0, bytes = 0;
};

struct OpDef {
  std::string_view name;

  // The outputs' types from inputs and attributes. ShapeError on a broken rule (see require()).
  std::vector<TensorType> (*infer)(const Node& node);

  // Gradients of the inputs (an invalid Value where there is none), emitted into `graph`, from the
  // gradients of the outputs (invalid where nothing flows back). nullptr: not differentiable.
  std::vector<Value> (*vjp)(Graph& graph, const Node& node,
                            const std::vector<Value>& gradients) = nullptr;

  // The same outputs by plainer ops: documentation, test oracle, and what runs on a device that has
  // no kernel for the op.
  std::vector<Value> (*decomposition)(Graph& graph, const Node& node) = nullptr;

  // Inputs, states or made of states alone (cached copies), whose storage the op overwrites.
  // nullptr: none.
  std::vector<int> (*writes)(const Node& node) = nullptr;

  // The operands' names in order, separated by blanks: "x weight". An op with any number of
  // operands ends with "...", which stands for more like the last.
  std::string_view operands = {};

  // The output has the input's elements in the input's order: it shares its storage.
  bool view = false;

  // A leaf: an input or a state.
  bool leaf = false;

  // Ranks meet in it: it stays where it is, on every rank alike.
  Collective collective = Collective::none;

  Narrowing narrowing = {};
  Recompute recompute = Recompute::costly;
  // Of an op of the backward pass: whether it takes so much longer than a pass over memory that
  // what it reads may be made again for it. nullptr: no.
  bool (*outlasts_recompute)(const Node& node) = nullptr;

  Ordering ordering = Ordering::common;
  // nullptr: no convolution.
  const ConvolutionRoles* convolution = nullptr;

  // Little work beside what makes its operands: it may move with a collective that waits for it.
  bool light = false;
  // Its operands may be any numbers, and its kernels are worth measuring against each other.
  bool tunable = false;

  Concern concern = Concern::network;
  // nullptr: the operands and results, each moved once.
  OpCost (*cost)(const Node& node) = nullptr;
};

// Throws a ShapeError "OP: RULE; got TYPES" when `holds` is false. For infer functions.
FTRAIN_API void require(bool holds, const Node& node, std::string_view rule);

// The name of operand `i`: "weight", or "operand 3" where the op does not say.
FTRAIN_API std::string operand_name(const OpDef& op, std::size_t i);

FTRAIN_API OpCost cost_of(const Node& node);

inline bool is_collective(const Node& node) {
  return node.op->collective != Collective::none;
}

inline std::vector<int> written_inputs(const Node& node) {
  return node.op->writes ? node.op->writes(node) : std::vector<int>{};
}

}  // namespace ftrain
