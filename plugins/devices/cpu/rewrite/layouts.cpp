#include "plugins/devices/cpu/rewrite/layouts.h"

#include "core/compile/layouts.h"
#include "plugins/devices/cpu/device/layout.h"
#include "plugins/devices/cpu/folded/ops.h"
#include "plugins/devices/cpu/onednn/convolution.h"

namespace ftrain::cpu {
namespace {

class Pass final : public LayoutPass {
 public:
  Pass(const Graph& graph, const KernelList& kernels, const KernelEnvironment& environment,
       const StateStore* store)
      : LayoutPass(graph, kernels, environment, store), block_(preferred_block(environment.isa)) {}

 private:
  bool full(std::int64_t channels) const { return channels % block_ == 0; }

  // x and y as the convolution wants them. oneDNN reads images of up to 3 channels row-major.
  ConvolutionTypes wanted(const Node& node) const {
    ConvolutionTypes t = convolution_types(node);
    const bool image = t.groups == 1 && t.x.shape[1] <= 3;
    const bool fast = may_be_arranged(t.x) && full(t.y.shape[1]) && (full(t.x.shape[1]) || image);
    t.x.layout = fast && !image ? blocked_layout(block_) : row_major;
    t.y.layout = fast ? blocked_layout(block_) : row_major;
    return t;
  }

  Images images(const Node& node) const override {
    const ConvolutionTypes t = wanted(node);
    return {t.x.layout, t.y.layout};
  }
  std::string kept_weight(const Node& node) const override {
    return preferred_weight_layout(wanted(node));
  }
  std::string made_weight(const Node& node) const override {
    return made_weight_layout(wanted(node));
  }
  bool exists(const TensorType& type) const override { return describe(type).has_value(); }

  // A folded convolution's weight is made once from states, so its order is free.
  bool arrange(const Node& node) override {
    if (node.op != &conv2d_folded_op) return false;
    const ConvolutionTypes t = wanted(node);
    std::vector<Value> inputs{as(plain(node.inputs[0]), t.x.layout),
                              as(plain(node.inputs[1]), preferred_weight_layout(t))};
    for (std::size_t i = 2; i < node.inputs.size(); ++i) {
      const Value old = node.inputs[i];
      if (!old.valid())
        inputs.emplace_back();
      else
        inputs.push_back(as(plain(old), old.shape().rank() == 4 ? t.y.layout : row_major));
    }
    emit(node, std::move(inputs), t.y.layout);
    return true;
  }

  std::int64_t block_;
};

}  // namespace

std::unique_ptr<Graph> assign_layouts(const Graph& graph, const KernelList& kernels,
                                      const KernelEnvironment& environment,
                                      const StateStore* store) {
  return Pass(graph, kernels, environment, store).run();
}

}  // namespace ftrain::cpu
