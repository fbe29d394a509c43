// Ops that draw random numbers: the image's normalisation and dropout. The arithmetic is small next
// to a step's convolutions, so these are plain loops over threads.
#include "ftrain/ops/random.h"
#include "plugins/devices/cpu/simd/tiles.h"

namespace ftrain::cpu {
namespace {

// Inputs: u8 [N, H, W, 3], step. A byte has 256 values, so each is normalised once.
class ImageNormalize : public BoundKernel {
 public:
  ImageNormalize(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        shape_(node.input(0).shape),
        key_(mix64(static_cast<std::uint64_t>(node.attributes.integer("seed")), flip_purpose)),
        first_sample_(node.attributes.integer("first_sample")),
        flip_(static_cast<float>(node.attributes.number("flip"))),
        bf16_(node.outputs[0].dtype == DType::bf16) {
    const float mean = static_cast<float>(node.attributes.number("mean"));
    const float scale = static_cast<float>(node.attributes.number("scale"));
    for (int i = 0; i < 256; ++i) {
      value_[i] = (static_cast<float>(i) - mean) * scale;
      value16_[i] = to_bf16(value_[i]);
    }
  }

  void launch() override {
    const auto* const images = static_cast<const std::uint8_t*>(inputs_[0]);
    const std::int64_t step = *static_cast<const std::int64_t*>(inputs_[1]);
    const std::int64_t height = shape_[1], width = shape_[2], plane = height * width;
    parallel_for(shape_[0] * height, threads(), [&](std::int64_t i) {
      const std::int64_t n = i / height, row = i % height;
      const bool flipped = image_flips(key_, step, first_sample_ + n, flip_);
      const std::uint8_t* const pixel = images + (i * width + (flipped ? width - 1 : 0)) * 3;
      const std::int64_t stride = flipped ? -3 : 3, to = n * 3 * plane + row * width;
      if (bf16_) {
        spread(pixel, stride, value16_, static_cast<BF16*>(outputs_[0]) + to);
      } else {
        spread(pixel, stride, value_, output(0) + to);
      }
    });
  }

 private:
  // One row of pixels to the three planes.
  template <class T>
  void spread(const std::uint8_t* pixel, std::int64_t stride, const T (&value)[256], T* y) const {
    const std::int64_t width = shape_[2], plane = shape_[1] * width;
    for (std::int64_t column = 0; column < width; ++column, pixel += stride) {
      y[column] = value[pixel[0]];
      y[plane + column] = value[pixel[1]];
      y[2 * plane + column] = value[pixel[2]];
    }
  }

  Shape shape_;
  std::uint64_t key_;
  std::int64_t first_sample_;
  float flip_;
  bool bf16_;
  float value_[256];
  BF16 value16_[256];
};

// Inputs: x, step. Elements are numbered row-major whatever the layout.
class Dropout : public BoundKernel {
 public:
  Dropout(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        block_(channel_block(node.input(0).layout)),
        key_(mix64(static_cast<std::uint64_t>(node.attributes.integer("seed")), dropout_purpose)),
        p_(static_cast<float>(node.attributes.number("p"))),
        factor_(static_cast<float>(1 / (1 - node.attributes.number("p")))) {
    const Shape& shape = node.input(0).shape;
    const std::int64_t row = shape.elements() / shape[0];
    first_ = node.attributes.integer("first_sample") * row;
    // Row-major: one run of channels, each sample's elements being its positions.
    positions_ = block_ == 1 ? row : shape[2] * shape[3];
    tiles_ = shape.elements() / (positions_ * block_);
  }

  int overwrites() const override { return 0; }

  void launch() override {
    const std::int64_t step = *static_cast<const std::int64_t*>(inputs_[1]);
    parallel_for(tiles_, threads(), [&](std::int64_t tile) {
      const std::int64_t base = tile * positions_ * block_;
      const float* x = input(0) + base;
      float* y = output(0) + base;
      for (std::int64_t at = 0; at < positions_; ++at) {
        for (std::int64_t lane = 0; lane < block_; ++lane, ++x, ++y) {
          const std::int64_t element = first_ + base + lane * positions_ + at;
          *y = dropout_keeps(key_, step, element, p_) ? *x * factor_ : 0.0f;
        }
      }
    });
  }

 private:
  std::int64_t block_, positions_ = 0, tiles_ = 0, first_ = 0;
  std::uint64_t key_;
  float p_, factor_;
};

std::string refuse_image(const Node& node, const KernelEnvironment&) {
  const DType dtype = node.outputs[0].dtype;
  if (dtype != DType::f32 && dtype != DType::bf16) return "only f32 and bf16";
  if (node.outputs[0].layout != row_major) return "only row-major";
  return {};
}

std::string refuse_dropout(const Node& node, const KernelEnvironment&) {
  const TensorType& x = node.input(0);
  if (x.dtype != DType::f32) return "only f32";
  if (node.outputs[0].layout != x.layout) return "result in another layout";
  if (x.layout != row_major && channel_block(x.layout) == 1) return "not an activation's layout";
  return {};
}

}  // namespace

void add_image_kernels(KernelList& list) {
  list.add({"image_normalize", "threads", 10, refuse_image, make_kernel<ImageNormalize>});
  list.add({"dropout", "threads", 10, refuse_dropout, make_kernel<Dropout>});
}

}  // namespace ftrain::cpu
