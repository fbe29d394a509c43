// Convolutions in the place of cuDNN's, as exact as its own: operands as they are stored (or
// rounded to tf32), sums in f32, and a weight's gradient rounded to what the activations are in.
#include <utility>

#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/cudnn/cudnn.h"
#include "plugins/devices/cuda/ops/convolution_types.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "tests/cuda/standin/oracle.h"
#include "tests/cuda/standin/standin.h"

namespace ftrain::cuda {
namespace {

class OracleCudnn final : public Cudnn {
 public:
  std::string version() const override { return "of the stand-in"; }
  std::string choices() const override { return {}; }
  void repeat(std::string_view) override {}
};

class OracleConvolution final : public Kernel {
 public:
  OracleConvolution(const Node& node, const KernelEnvironment& environment)
      : context_(context_of(environment)),
        first_(node.input(0)),
        second_(node.input(1)),
        result_(node.outputs[0]),
        x_(convolution_types(node).x.dtype),
        op_(node) {}

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    work_ = [first = first_, second = second_, result = result_, x = x_, tf32 = context_.tf32,
             op = op_, a = inputs[0], b = inputs[1], y = outputs[0]] {
      standin::HostNode& host = op.here();
      standin::widen(first, a, host.input(0).data());
      standin::widen(second, b, host.input(1).data());
      if (tf32) {
        standin::round_to_tf32(host.input(0));
        standin::round_to_tf32(host.input(1));
      }
      host.run();
      TensorType stored = result;
      stored.dtype = x;
      if (stored.dtype == result.dtype) return standin::narrow(result, host.output().data(), y);
      std::vector<float> rounded(host.output().size());
      stored.layout = "";
      std::vector<std::uint16_t> small(rounded.size());
      standin::narrow(stored, host.output().data(), small.data());
      standin::widen(stored, small.data(), rounded.data());
      standin::narrow(result, rounded.data(), y);
    };
  }
  void launch() override { standin::enqueue(context_.stream, work_); }

 private:
  const Context& context_;
  TensorType first_, second_, result_;
  DType x_;
  standin::HostOp op_;
  std::function<void()> work_;
};

// As cuDNN's own.
std::string refuse(const Node& node, const KernelEnvironment& environment) {
  if (context_of(environment).cudnn == nullptr) return "cuDNN is not there";
  const ConvolutionTypes types = convolution_types(node);
  const bool weight_grad = node.op->name == "conv2d_weight_grad";
  if (node.attributes.integer("groups") != 1) return "is for dense convolutions";
  const DType dtype = types.x.dtype;
  if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f16) {
    return "is for f32, bf16 and f16, not " + types.x.text();
  }
  const DType weights = weight_grad ? DType::f32 : dtype;
  if (types.y.dtype != dtype || types.weight.dtype != weights) {
    return "wants activations in one type and weights in " + std::string(name_of(weights));
  }
  for (const TensorType& type : {types.x, types.weight, types.y}) {
    if (!lies_channels_last(type)) return "wants channels-last operands, not " + type.text();
  }
  return {};
}

std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<OracleConvolution>(node, environment);
}

}  // namespace

std::unique_ptr<Cudnn> open_cudnn(const CudnnOptions&) {
  return std::make_unique<OracleCudnn>();
}

void add_cudnn_kernels(KernelList& list) {
  for (const std::string_view op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}) {
    list.add({.op = op, .name = "cudnn", .priority = 30, .refuse = refuse, .make = make});
  }
}

}  // namespace ftrain::cuda
