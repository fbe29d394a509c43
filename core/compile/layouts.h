// The layouts pass: images and convolution weights in the orders that a device's kernels read.
//
// Convolutions ask for an order of their activations. Every other node keeps the order of its
// operands where one of its kernels takes it, and gets row-major operands where none does;
// `reorder` nodes stand between. A parameter that is a convolution's weight is kept in the
// convolution's own order, and its optimizer's slots with it, so that a step moves no weight that
// it need not move. States that the store holds keep the layout that they have there.
//
// A device derives from LayoutPass and says what its convolutions want. Ownership: graph, kernels
// and store must outlive the pass. Threads: one.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "core/compile/passes.h"
#include "ftrain/device/device.h"
#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {

// The same elements in the order of attribute "layout".
FTRAIN_API extern const OpDef reorder_op;
// The same where both orders are the same bytes: a view.
FTRAIN_API extern const OpDef relabel_op;

class FTRAIN_API LayoutPass {
 public:
  // `store` may be null.
  LayoutPass(const Graph& graph, const KernelList& kernels, const KernelEnvironment& environment,
             const StateStore* store);
  virtual ~LayoutPass();
  LayoutPass(const LayoutPass&) = delete;
  LayoutPass& operator=(const LayoutPass&) = delete;

  std::unique_ptr<Graph> run();

 protected:
  struct Images {
    std::string x, y;
  };
  // Of a convolution or one of its gradients: the layouts of its activations; how its weight is
  // best kept; how its kernels best make the weight's gradient.
  virtual Images images(const Node& convolution) const = 0;
  virtual std::string kept_weight(const Node& convolution) const = 0;
  virtual std::string made_weight(const Node& convolution) const = 0;
  // Whether there can be a tensor of that type and layout.
  virtual bool exists(const TensorType& type) const = 0;
  // Whether the tensor's bytes are the same in that layout too.
  virtual bool same_bytes(const TensorType& type, const std::string& layout) const;
  // Emits what becomes of a node that the device arranges otherwise; false: it does not.
  virtual bool arrange(const Node& node);

  // Images and weights: 4-D and of a type that layouts are for.
  static bool may_be_arranged(const TensorType& type);
  // The new value of an old one, as it lies.
  Value plain(Value old);
  // A new value in the wanted layout.
  Value as(Value value, const std::string& layout);
  // Emits a node like the old one with the new inputs; outputs that may be arranged get the layout.
  void emit(const Node& node, std::vector<Value> inputs, const std::string& layout);
  // The same where a kernel takes the new inputs in that layout.
  bool try_layout(const Node& node, const std::vector<Value>& inputs, const std::string& layout);

 private:
  void find_updates();
  void leaf(const Node& node);
  void convolution(const Node& node);
  void forward(const Node& node);
  void input_grad(const Node& node);
  void weight_grad(const Node& node);
  Value weight(Value old);
  void arrange_weight(Value old, const Node& convolution);
  void other(const Node& node);
  std::string common_layout(const Node& node, const std::vector<Value>& inputs) const;
  bool keep(const Node& node, const std::vector<Value>& inputs);
  bool supported(const Node& node) const;
  std::vector<TensorType> with_layout(const Node& node, const std::string& layout) const;
  void map_outputs(const Node& node, Value made);
  Value first(std::int32_t old) const { return {const_cast<Graph*>(&old_), old, 0}; }

  const Graph& old_;
  const KernelList& kernels_;
  const KernelEnvironment& environment_;
  const StateStore* store_;
  Rebuild rebuild_;
  std::map<std::int32_t, std::vector<std::int32_t>> slots_;  // old state -> old states
  std::set<std::int32_t> fixed_, used_;                      // old states; old nodes
  std::map<std::int32_t, std::string> pending_;              // old states met before their node
  std::map<std::tuple<std::int32_t, std::int32_t, std::string>, Value> reordered_;
};

}  // namespace ftrain
