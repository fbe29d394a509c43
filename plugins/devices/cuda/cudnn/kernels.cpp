// conv2d and its gradients by cuDNN.
#include "plugins/devices/cuda/ops/kernels.h"

#include "ftrain/base/error.h"
#include "ftrain/ops.h"
#include "plugins/devices/cuda/cudnn/library.h"

namespace ftrain::cuda {
namespace {

using Direction = ConvolutionProblem::Direction;

constexpr std::string_view cudnn_name = "cudnn";
constexpr int cudnn_priority = 30;

CudnnLibrary& library_of(const KernelEnvironment& environment) {
  return *static_cast<CudnnLibrary*>(context_of(environment).cudnn);
}

// What cuDNN's workspaces and operands are aligned to; scratch is by 64 bytes only.
constexpr std::size_t alignment = 256;

std::size_t aligned(std::size_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// 16-bit floats to f32, by the device's own kernel for the op cast: the gradient of weights, which
// cuDNN rounds to what the operands are stored in.
class Widening {
 public:
  Widening(const TensorType& from, const KernelEnvironment& environment) : type_(from) {
    const Value wide = ops::cast(graph_.input("narrow", from), DType::f32);
    Node& node = graph_.node(wide.node_index());
    node.outputs[0].layout = from.layout;
    KernelList list;
    add_pointwise_kernels(list);
    kernel_ = list.choose(node, environment).def->make(node, environment);
  }
  std::size_t bytes() const { return aligned(type_.bytes()); }
  void bind(void* from, void* to) {
    void* const operands[] = {from, to};
    kernel_->bind({operands, 1}, {operands + 1, 1}, nullptr);
  }
  void launch() { kernel_->launch(); }

 private:
  TensorType type_;
  Graph graph_;
  std::unique_ptr<Kernel> kernel_;
};

class CudnnConvolution final : public Kernel {
 public:
  CudnnConvolution(const Node& node, const KernelEnvironment& environment)
      : context_(context_of(environment)),
        library_(library_of(environment)),
        problem_(node, context_.tf32),
        plan_(library_.plan_for(problem_)) {
    if (problem_.w.dtype != convolution_types(node).weight.dtype) {
      widening_ = std::make_unique<Widening>(problem_.w, environment);
    }
  }

  std::size_t scratch_bytes() const override {
    return alignment + aligned(plan_->workspace()) + (widening_ ? widening_->bytes() : 0);
  }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    void* const first = inputs[0];
    void* const second = inputs[1];
    void* const result = outputs[0];
    auto* const workspace =
        reinterpret_cast<char*>(aligned(reinterpret_cast<std::uintptr_t>(scratch)));
    switch (problem_.direction) {
      case Direction::forward:
        pack_.emplace(variant_pack(first, second, result, workspace));
        break;
      case Direction::input_grad:
        pack_.emplace(variant_pack(result, second, first, workspace));
        break;
      case Direction::weight_grad:
        void* narrow = workspace + aligned(plan_->workspace());
        if (widening_) widening_->bind(narrow, result);
        pack_.emplace(variant_pack(second, widening_ ? narrow : result, first, workspace));
        break;
    }
  }

  void launch() override {
    library_.execute(*plan_, *pack_, context_.stream, problem_.name);
    if (widening_) widening_->launch();
  }

 private:
  const Context& context_;
  CudnnLibrary& library_;
  ConvolutionProblem problem_;
  std::shared_ptr<const Plan> plan_;
  std::optional<Descriptor> pack_;
  std::unique_ptr<Widening> widening_;
};

std::string refuse(const Node& node, const KernelEnvironment& environment) {
  if (context_of(environment).cudnn == nullptr) return "cuDNN is not there";
  const ConvolutionTypes types = convolution_types(node);
  const bool weight_grad = node.op == &ops::def::conv2d_weight_grad;
  if (const std::int64_t groups = node.attributes.integer("groups"); groups != 1) {
    return "is for dense convolutions, not groups = " + std::to_string(groups);
  }
  const DType dtype = types.x.dtype;
  if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f16) {
    return "is for f32, bf16 and f16, not " + types.x.text();
  }
  const DType weights = weight_grad ? DType::f32 : dtype;
  if (types.y.dtype != dtype || types.weight.dtype != weights) {
    return "wants activations in one type and weights in " + std::string(name_of(weights)) +
           ", not " + types.x.text() + ", " + types.weight.text() + " and " + types.y.text();
  }
  for (const TensorType& type : {types.x, types.weight, types.y}) {
    if (!lies_channels_last(type)) return "wants channels-last operands, not " + type.text();
  }
  try {
    const ConvolutionProblem problem(node, context_of(environment).tf32);
    static_cast<void>(library_of(environment).plan_for(problem));
    return {};
  } catch (const DeviceError& error) {
    return error.what();
  }
}

std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<CudnnConvolution>(node, environment);
}

}  // namespace

void add_cudnn_kernels(KernelList& list) {
  for (const std::string_view op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}) {
    list.add(
        {.op = op, .name = cudnn_name, .priority = cudnn_priority, .refuse = refuse, .make = make});
  }
}

}  // namespace ftrain::cuda
