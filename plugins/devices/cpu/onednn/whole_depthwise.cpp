// The weight gradient of a depthwise convolution whose kernel covers the whole image (the global
// depthwise pooling of face networks): dw[c, p] = sum over n of dy[n, c] x[n, c, p]. oneDNN has
// only plain loops for kernels that large.
#include <algorithm>

#include "plugins/devices/cpu/device/layout.h"
#include "plugins/devices/cpu/onednn/convolution.h"
#include "plugins/devices/cpu/onednn/kernels.h"

namespace ftrain::cpu {
namespace {

float widen(float x) {
  return x;
}
float widen(BF16 x) {
  return to_f32(x);
}

// All three tensors in one block: x [N][C/B][P][B], dy [N][C/B][B], dw [C/B][P][B].
template <class T>
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
    dy_ = static_cast<const T*>(inputs[0]);
    x_ = static_cast<const T*>(inputs[1]);
    dw_ = static_cast<float*>(outputs[0]);
  }

  void launch() override {
    const std::int64_t run = positions_ * block_;
#pragma omp parallel for num_threads(threads_)
    for (std::int64_t c = 0; c < blocks_; ++c) {
      float* dw = dw_ + c * run;
      std::fill_n(dw, run, 0.0f);
      for (std::int64_t n = 0; n < batch_; ++n) {
        const T* dy = dy_ + (n * blocks_ + c) * block_;
        const T* x = x_ + (n * blocks_ + c) * run;
        for (std::int64_t p = 0; p < positions_; ++p) {
          for (std::int64_t l = 0; l < block_; ++l) {
            dw[p * block_ + l] += widen(dy[l]) * widen(x[p * block_ + l]);
          }
        }
      }
    }
  }

 private:
  int threads_;
  std::int64_t block_, batch_, blocks_, positions_;
  const T *dy_ = nullptr, *x_ = nullptr;
  float* dw_ = nullptr;
};

std::string refuse(const Node& node, const KernelEnvironment&) {
  const ConvolutionTypes t = convolution_types(node);
  if (t.x.dtype != t.y.dtype || !data_type_of(t.x.dtype)) return "for f32 or bf16";
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
              if (node.input(0).dtype == DType::bf16) {
                return std::make_unique<WholeDepthwise<BF16>>(node, environment);
              }
              return std::make_unique<WholeDepthwise<float>>(node, environment);
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
