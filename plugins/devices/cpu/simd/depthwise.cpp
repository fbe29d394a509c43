// 3x3 convolutions with padding 1 in groups of one channel (depthwise, stride 1 and 2) or of two
// (stride 1), and their gradients.
#include "plugins/devices/cpu/simd/depthwise.h"

#include <omp.h>

#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/simd/reduce.h"

namespace ftrain::cpu {

std::string refuse_depthwise(const TensorType& x, const TensorType& weight, const TensorType& y,
                             std::int64_t stride, std::int64_t padding) {
  if ((x.dtype != DType::f32 && x.dtype != DType::bf16) || y.dtype != x.dtype ||
      weight.dtype != DType::f32) {
    return "only f32 or bf16, with weights in f32";
  }
  const std::int64_t channels = x.shape[1], width = weight.shape[1];
  if (weight.shape != Shape{channels, width, 3, 3} || y.shape[1] != channels || width > 2 ||
      padding != 1 || stride < 1 || stride > (width == 1 ? 2 : 1)) {
    return "only 3x3 with padding 1 in groups of 1 channel, stride 1 or 2, or of 2 with stride 1";
  }
  const std::int64_t block = channel_block(x.layout);
  if (block == 1 || x.layout != y.layout) return "only channel-blocked images";
  if (weight.layout != row_major &&
      (width != 1 || weight.layout != "Abcd" + std::to_string(block) + "a")) {
    return "the weight must be row-major or in the images' blocks";
  }
  return {};
}

DepthwiseShape depthwise_shape(const TensorType& x, const TensorType& weight, const TensorType& y,
                               std::int64_t stride) {
  return {.height = x.shape[2],
          .width = x.shape[3],
          .out_height = y.shape[2],
          .out_width = y.shape[3],
          .stride = stride,
          .block = channel_block(x.layout),
          .pairs = weight.shape[1] == 2,
          .bf16 = x.dtype == DType::bf16};
}

void arrange_depthwise_weight(const DepthwiseShape& shape, const TensorType& weight,
                              const float* from, bool turned, float* to) {
  constexpr std::int64_t taps = depthwise_taps;
  const std::int64_t block = shape.block, width = shape.pairs ? 2 : 1;
  for (std::int64_t c = 0; c < weight.shape[0]; ++c) {
    float* const own = to + c / block * shape.weight_rows() * block + c % block;
    const std::int64_t mine = shape.pairs ? c & 1 : 0;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      const std::int64_t source = turned ? taps - 1 - tap : tap;
      if (weight.layout != row_major) {
        own[tap * block] = from[(c / block * taps + source) * block + c % block];
        continue;
      }
      own[tap * block] = from[(c * width + mine) * taps + source];
      // From this lane to the other of its pair; backward that is the weight the other way.
      if (!shape.pairs) continue;
      const std::int64_t across = turned ? c * 2 + (1 - mine) : (c ^ 1) * 2 + mine;
      own[(taps + tap) * block] = from[across * taps + source];
    }
  }
}

void store_depthwise_gradient(const DepthwiseShape& shape, const TensorType& weight,
                              const double* sums, std::int64_t stride, float* to) {
  constexpr std::int64_t taps = depthwise_taps;
  const std::int64_t block = shape.block;
  for (std::int64_t c = 0; c < weight.shape[0]; ++c) {
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      const auto own = static_cast<float>(sums[tap * stride + c]);
      if (weight.layout != row_major) {
        to[(c / block * taps + tap) * block + c % block] = own;
      } else if (!shape.pairs) {
        to[c * taps + tap] = own;
      } else {
        to[(c * 2 + (c & 1)) * taps + tap] = own;
        to[((c ^ 1) * 2 + (c & 1)) * taps + tap] =
            static_cast<float>(sums[(taps + tap) * stride + c]);
      }
    }
  }
}

namespace {

class Depthwise : public BoundKernel {
 public:
  Depthwise(const TensorType& x, const TensorType& weight, const TensorType& y, const Node& node,
            const KernelEnvironment& environment)
      : BoundKernel(environment),
        functions_(depthwise_functions(environment.isa)),
        shape_(depthwise_shape(x, weight, y, node.attributes.integer("stride"))),
        weight_(weight),
        samples_(x.shape[0]),
        blocks_(x.shape[1] / shape_.block),
        element_(size_of(x.dtype)) {}

 protected:
  std::size_t ring_bytes() const {
    return static_cast<std::size_t>(threads()) * shape_.scratch_floats() * sizeof(float);
  }
  // A tile of this thread; `memory` is ring_bytes().
  DepthwiseTile tile(void* memory) const {
    DepthwiseTile t;
    t.shape = shape_;
    t.scratch = static_cast<float*>(memory) +
                static_cast<std::size_t>(omp_get_thread_num()) * shape_.scratch_floats();
    return t;
  }
  // Tile i of an image of x's or of y's extents.
  char* x_tile(void* x, std::int64_t i) const { return at(x, i * shape_.height * shape_.width); }
  char* y_tile(void* y, std::int64_t i) const {
    return at(y, i * shape_.out_height * shape_.out_width);
  }

  DepthwiseFunctions functions_;
  DepthwiseShape shape_;
  TensorType weight_;
  std::int64_t samples_, blocks_;

 private:
  char* at(void* image, std::int64_t row) const {
    return static_cast<char*>(image) + static_cast<std::size_t>(row * shape_.block) * element_;
  }

  std::size_t element_;
};

// conv2d: x, weight -> y. conv2d_input_grad: dy, weight -> dx.
template <bool gradient>
class DepthwiseImage final : public Depthwise {
 public:
  DepthwiseImage(const Node& node, const KernelEnvironment& environment)
      : Depthwise(gradient ? node.outputs[0] : node.input(0), node.input(1),
                  gradient ? node.input(0) : node.outputs[0], node, environment) {}

  std::size_t scratch_bytes() const override {
    return ring_bytes() + static_cast<std::size_t>(blocks_ * block_floats()) * sizeof(float);
  }

  void launch() override {
    float* const weights = reinterpret_cast<float*>(static_cast<char*>(scratch_) + ring_bytes());
    arrange_depthwise_weight(shape_, weight_, input(1), gradient, weights);
    parallel_for(samples_ * blocks_, threads(), [&](std::int64_t i) {
      DepthwiseTile t = tile(scratch_);
      t.weight = weights + i % blocks_ * block_floats();
      if constexpr (gradient) {
        t.dy.x = y_tile(inputs_[0], i);
        t.dx = x_tile(outputs_[0], i);
        functions_.backward(t);
      } else {
        t.x.x = x_tile(inputs_[0], i);
        t.y = y_tile(outputs_[0], i);
        functions_.forward(t);
      }
    });
  }

 private:
  std::int64_t block_floats() const { return shape_.weight_rows() * shape_.block; }
};

// dy, x -> the gradient of weight.
class DepthwiseWeight final : public Depthwise {
 public:
  DepthwiseWeight(const Node& node, const KernelEnvironment& environment)
      : Depthwise(node.input(1), node.outputs[0], node.input(0), node, environment),
        sums_(tiles_of(node.input(1)), 1, shape_.weight_rows()) {}

  std::size_t scratch_bytes() const override { return ring_bytes() + sums_.scratch_bytes(); }

  void launch() override {
    auto* const sums = reinterpret_cast<double*>(static_cast<char*>(scratch_) + ring_bytes());
    sums_.gather(sums, threads(), [&](std::int64_t run, std::int64_t block, double* partial) {
      DepthwiseTile t = tile(scratch_);
      t.dy.x = y_tile(inputs_[0], run * blocks_ + block);
      t.x.x = x_tile(inputs_[1], run * blocks_ + block);
      t.sums = partial;
      t.sums_stride = sums_.partial_stride();
      functions_.backward(t);
    });
    store_depthwise_gradient(shape_, weight_, sums, sums_.partial_stride(), output(0));
  }

 private:
  ChannelSums sums_;
};

std::string refuse_types(const Node& node, const TensorType& x, const TensorType& weight,
                         const TensorType& y) {
  return refuse_depthwise(x, weight, y, node.attributes.integer("stride"),
                          node.attributes.integer("padding"));
}
std::string refuse_forward(const Node& node, const KernelEnvironment&) {
  return refuse_types(node, node.input(0), node.input(1), node.outputs[0]);
}
std::string refuse_input_grad(const Node& node, const KernelEnvironment&) {
  return refuse_types(node, node.outputs[0], node.input(1), node.input(0));
}
std::string refuse_weight_grad(const Node& node, const KernelEnvironment&) {
  return refuse_types(node, node.input(1), node.outputs[0], node.input(0));
}

}  // namespace

void add_depthwise_kernels(KernelList& list) {
  list.add({"conv2d", "depthwise", 30, refuse_forward, make_kernel<DepthwiseImage<false>>});
  list.add(
      {"conv2d_input_grad", "depthwise", 30, refuse_input_grad, make_kernel<DepthwiseImage<true>>});
  list.add(
      {"conv2d_weight_grad", "depthwise", 30, refuse_weight_grad, make_kernel<DepthwiseWeight>});
}

}  // namespace ftrain::cpu
