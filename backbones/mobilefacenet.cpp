// MobileFaceNet (Chen et al., 2018) with the layout, initialisation and parameter names of
// arcface_torch's mobilefacenet: `mbf` is scale 2 and 512-d, `mbf_large` scale 4 with blocks 2, 8,
// 12, 4; InsightFace's Y1 is scale 1, 128-d, eps 1e-3.
#include <cmath>

#include "ftrain/backbone.h"

namespace {

using namespace ftrain;

struct MobileFaceNet final : Backbone {
  std::int64_t scale = 2, embedding = 512;
  std::vector<std::int64_t> blocks{1, 4, 6, 2};
  double eps = 1e-5, momentum = 0.1;

  void configure(Keys& keys) override {
    keys.bind("scale", scale, "factor on the widths 64 and 128: 2 in arcface_torch, 1 in Y1",
              at_least(1));
    keys.bind("embedding", embedding, "width of the embedding", at_least(1));
    keys.bind(
        "blocks", blocks,
        "four counts: 1 for a grouped convolution after the stem or more for residual blocks, "
        "then the residual blocks of the three stages");
    keys.bind("eps", eps, "of batch norms: 1e-5 in arcface_torch, 1e-3 in Y1", above(0));
    keys.bind("momentum", momentum, "of running statistics", between(0, 1));
    keys.expect(blocks.size() == 4, "blocks", "must be four counts, e.g. [1, 4, 6, 2]");
  }

  Value forward(const Scope& scope, Value x) const override {
    const Scope body = scope / "layers";
    const std::int64_t narrow = 64 * scale, wide = 128 * scale;
    x = block(body / "0", x, narrow, 3, {.stride = 2, .padding = 1});
    if (blocks[0] == 1) {
      x = block(body / "1", x, narrow, 3, {.padding = 1, .groups = 64});
    } else {
      x = residual(body / "1", x, blocks[0], 128);
    }
    x = bottleneck(body / "2", x, 128, narrow, 2);
    x = residual(body / "3", x, blocks[1], 128);
    x = bottleneck(body / "4", x, 256, wide, 2);
    x = residual(body / "5", x, blocks[2], 256);
    x = bottleneck(body / "6", x, 512, wide, 2);
    x = residual(body / "7", x, blocks[3], 256);
    x = block(scope / "conv_sep", x, 512, 1, {});
    return tail(scope / "features" / "layers", x);
  }

 private:
  layers::BatchNormOptions norm() const { return {.eps = eps, .momentum = momentum}; }

  // Kaiming normal by fan-out, groups not divided out.
  static Initializer kaiming(std::int64_t fan_out) {
    return {Initializer::Kind::normal, 0, std::sqrt(2.0 / static_cast<double>(fan_out))};
  }

  // Convolution and batch norm.
  Value linear_block(const Scope& scope, Value x, std::int64_t out, std::int64_t kernel,
                     const ops::Conv2d& options) const {
    const Scope inner = scope / "layers";
    x = layers::conv2d(inner, "0", x, out, kernel, options, kaiming(out * kernel * kernel));
    return layers::batch_norm(inner, "1", x, norm());
  }

  // The same with PReLU.
  Value block(const Scope& scope, Value x, std::int64_t out, std::int64_t kernel,
              const ops::Conv2d& options) const {
    return layers::prelu(scope / "layers", "2", linear_block(scope, x, out, kernel, options));
  }

  // Expand to `middle`, depthwise 3x3, project to `out`.
  Value bottleneck(const Scope& scope, Value x, std::int64_t middle, std::int64_t out,
                   std::int64_t stride) const {
    const Scope inner = scope / "layers";
    x = block(inner / "0", x, middle, 1, {});
    x = block(inner / "1", x, middle, 3, {.stride = stride, .padding = 1, .groups = middle});
    return linear_block(inner / "2", x, out, 1, {});
  }

  Value residual(const Scope& scope, Value x, std::int64_t count, std::int64_t middle) const {
    for (std::int64_t i = 0; i < count; ++i) {
      const Scope inner = scope / "layers" / std::to_string(i);
      x = ops::add(bottleneck(inner, x, middle, x.shape()[1], 1), x);
    }
    return x;
  }

  // Global depthwise convolution, linear layer, batch norm.
  Value tail(const Scope& scope, Value x) const {
    if (x.shape()[2] != x.shape()[3]) throw ShapeError("mobilefacenet needs a square image");
    x = linear_block(scope / "0", x, 512, x.shape()[2], {.groups = 512});
    x = ops::flatten(x);
    x = layers::linear(scope, "2", x, embedding, false, kaiming(embedding));
    return layers::batch_norm(scope, "3", x, norm());
  }
};

}  // namespace

FTRAIN_PLUGIN(mobilefacenet, registry) {
  registry.add<ftrain::Backbone, MobileFaceNet>("mobilefacenet", "MobileFaceNet, two widths");
}
