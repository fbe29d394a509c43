// The weight gradient of a depthwise convolution whose kernel covers the whole image (the global
// depthwise pooling of face networks): dw[c, p] = sum over n of dy[n, c] x[n, c, p]. oneDNN has
// only plain loops for kernels that large.
#include <algorithm>

#include "plugins/devices/cpu/layout.h"
#include "plugins/devices/cpu/onednn/convolution.h"
#include "plugins/devices/cpu/onednn/kernels.h"

namespace ftrain::cpu {
namespace {

// All three tensors in one block: x [N][C/B][P][B], dy [N][C/B][B], dw [C/B][P][B].
class WholeDepthwise final : public Kernel {
 public:
  WholeDepthwise(const Node& node, const KernelEnvironment& environment)
      : threads_(environment.threads) {
    const TensorType& x = node.input(1);
    block_ = channel_block(x.layout);
    batch_ = x.shape[0];
    blocks_ = x.shape[1] / block_;
    positions_ = x.shape[2] * x.shape[3];
  }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    dy_ = static_cast<const float*>(inputs[0]);
    x_ = static_cast<const float*>(inputs[1]);
    dw_ = static_cast<float*>(outputs[0]);
  }

  void launch() override {
    const std::int64_t run = positions_ * block_;
#pragma omp parallel for num_threads(threads_)
    for (std::int64_t c = 0; c < blocks_; ++c) {
      float* dw = dw_ + c * run;
      std::fill_n(dw, run, 0.0f);
      for (std::int64_t n = 0; n < batch_; ++n) {
        const float* dy = dy_ + (n * blocks_ + c) * block_;
        const float* x = x_ + (n * blocks_ + c) * run;
        for (std::int64_t p = 0; p < positions_; ++p) {
          for (std::int64_t l = 0; l < block_; ++l) dw[p * block_ + l] += dy[l] * x[p * block_ + l];
        }
      }
    }
  }

 private:
  int threads_;
  std::int64_t block_, batch_, blocks_, positions_;
  const float *dy_ = nullptr, *x_ = nullptr;
  float* dw_ = nullptr;
};

std::string refuse(const Node& node, const KernelEnvironment&) {
  const ConvolutionTypes t = convolution_types(node);
  if (t.x.dtype != DType::f32) return "for f32";
  if (!covers_image(t)) return "for depthwise kernels as large as the image";
  if (t.x.layout != t.y.layout || t.weight.layout != whole_depthwise_layout(t)) {
    return "the three tensors must share a block of channels";
  }
  return "";
}

}  // namespace

void add_whole_depthwise(KernelList& list) {
  list.add({"conv2d_weight_grad", "whole depthwise", 30, refuse,
            [](const Node& node, const KernelEnvironment& environment) -> std::unique_ptr<Kernel> {
              return std::make_unique<WholeDepthwise>(node, environment);
            }});
}

bool covers_image(const ConvolutionTypes& t) {
  return t.depthwise() && t.x.shape[1] == t.weight.shape[0] && t.padding == 0 &&
         t.y.shape[2] == 1 && t.y.shape[3] == 1 && t.x.shape[2] == t.weight.shape[2] &&
         t.x.shape[3] == t.weight.shape[3];
}

std::string whole_depthwise_layout(const ConvolutionTypes& t) {
  const std::int64_t block = channel_block(t.x.layout);
  return block == 1 ? row_major : "Abcd" + std::to_string(block) + "a";
}

}  // namespace ftrain::cpu
