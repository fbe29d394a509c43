#include "plugins/devices/cuda/rewrite/layouts.h"

#include <algorithm>
#include <set>

#include "core/compile/layouts.h"
#include "ftrain/ops.h"
#include "plugins/devices/cuda/device/layout.h"

namespace ftrain::cuda {
namespace {

class Pass final : public LayoutPass {
 public:
  Pass(const Graph& graph, const KernelList& kernels, const KernelEnvironment& environment,
       const StateStore* store)
      : LayoutPass(graph, kernels, environment, store) {
    for (std::int32_t i = 0; i < graph.size(); ++i) {
      const Node& node = graph.node(i);
      if (node.op == &ops::def::conv2d) convolved_.insert(node.inputs[0].node_index());
    }
  }

 private:
  Images images(const Node& convolution) const override {
    const std::string layout = layout_of(convolution);
    return {layout, layout};
  }
  std::string kept_weight(const Node& convolution) const override { return layout_of(convolution); }
  std::string made_weight(const Node& convolution) const override { return layout_of(convolution); }

  // Depthwise weights have one channel a kernel, and hence the same bytes in both orders.
  static std::string layout_of(const Node& convolution) {
    return may_be_arranged(convolution.input(0)) ? channels_last : row_major;
  }

  bool exists(const TensorType& type) const override {
    return type.layout == row_major || (type.layout == channels_last && type.shape.rank() == 4);
  }
  bool same_bytes(const TensorType& type, const std::string&) const override {
    return type.shape[1] == 1 || type.shape[2] * type.shape[3] == 1;
  }

  // Images come in no order of ours: they are made in that of the convolution that reads them.
  bool arrange(const Node& node) override {
    if (node.op != &ops::def::image_normalize || !convolved_.contains(node.index)) return false;
    return may_be_arranged(node.outputs[0]) &&
           try_layout(node, {plain(node.inputs[0]), plain(node.inputs[1])}, channels_last);
  }

  std::set<std::int32_t> convolved_;  // old nodes that are some convolution's x
};

}  // namespace

std::unique_ptr<Graph> assign_layouts(const Graph& graph, const KernelList& kernels,
                                      const KernelEnvironment& environment,
                                      const StateStore* store) {
  return Pass(graph, kernels, environment, store).run();
}

}  // namespace ftrain::cuda
