// IResNet: the improved residual network of ArcFace (Deng et al., 2019; Duta et al., 2020), with
// the layout, initialisation and parameter names of arcface_torch's iresnet.
#include <array>
#include <cmath>
#include <optional>

#include "ftrain/backbone.h"

namespace {

using namespace ftrain;

struct IResNet final : Backbone {
  std::int64_t depth = 50, embedding = 512;
  std::string tail = "FC";
  std::optional<double> dropout;
  double eps = 1e-5, momentum = 0.1;

  void configure(Keys& keys) override {
    keys.bind("depth", depth, "number of layers", one_of({18, 34, 50, 100, 200}));
    keys.bind("embedding", embedding, "width of the embedding", at_least(1));
    keys.bind("fc", tail,
              "the tail: E (dropout 0.4 and a linear layer), FC (without dropout), GDC (global "
              "depthwise convolution)",
              one_of(std::vector<std::string>{"E", "FC", "GDC"}));
    keys.bind("dropout", dropout, "probability before the linear layer, instead of the tail's own",
              between(0, 0.99));
    keys.bind("eps", eps, "of batch norms: 1e-5 in arcface_torch, 2e-5 in MXNet and oneflow_face",
              above(0));
    keys.bind("momentum", momentum, "of running statistics", between(0, 1));
  }

  Value forward(const Scope& scope, Value x) const override {
    x = layers::conv2d(scope, "conv1", x, 64, 3, {.padding = 1}, weights);
    x = layers::batch_norm(scope, "bn1", x, norm());
    x = layers::prelu(scope, "prelu", x);
    const std::array<std::int64_t, 4> counts = blocks();
    for (std::size_t stage = 0; stage < 4; ++stage) {
      const Scope layer = scope / ("layer" + std::to_string(stage + 1));
      const std::int64_t planes = std::int64_t{64} << stage;
      for (std::int64_t i = 0; i < counts[stage]; ++i) {
        x = block(layer / std::to_string(i), x, planes, i == 0 ? 2 : 1);
      }
    }
    if (tail == "GDC") return depthwise_tail(scope, x);
    x = layers::batch_norm(scope, "bn2", x, norm());
    x = layers::dropout(scope, "dropout", x, dropout.value_or(tail == "E" ? 0.4 : 0.0));
    x = ops::flatten(x);
    const double bound = 1 / std::sqrt(static_cast<double>(x.shape()[1]));
    const Initializer uniform{Initializer::Kind::uniform, -bound, bound};
    x = layers::linear(scope, "fc", x, embedding, true, uniform, uniform);
    return features(scope, x);
  }

 private:
  static constexpr Initializer weights{Initializer::Kind::normal, 0, 0.1};

  layers::BatchNormOptions norm() const { return {.eps = eps, .momentum = momentum}; }

  std::array<std::int64_t, 4> blocks() const {
    switch (depth) {
      case 18:
        return {2, 2, 2, 2};
      case 34:
        return {3, 4, 6, 3};
      case 50:
        return {3, 4, 14, 3};
      case 100:
        return {3, 13, 30, 3};
      default:
        return {6, 26, 60, 6};
    }
  }

  Value block(const Scope& scope, Value input, std::int64_t planes, std::int64_t stride) const {
    Value x = layers::batch_norm(scope, "bn1", input, norm());
    x = layers::conv2d(scope, "conv1", x, planes, 3, {.padding = 1}, weights);
    x = layers::batch_norm(scope, "bn2", x, norm());
    x = layers::prelu(scope, "prelu", x);
    x = layers::conv2d(scope, "conv2", x, planes, 3, {.stride = stride, .padding = 1}, weights);
    x = layers::batch_norm(scope, "bn3", x, norm());
    Value shortcut = input;
    if (stride != 1 || input.shape()[1] != planes) {
      const Scope down = scope / "downsample";
      shortcut = layers::conv2d(down, "0", input, planes, 1, {.stride = stride}, weights);
      shortcut = layers::batch_norm(down, "1", shortcut, norm());
    }
    return ops::add(x, shortcut);
  }

  // Batch norm over the embedding; its factor is 1 and stays so.
  Value features(const Scope& scope, Value x) const {
    layers::BatchNormOptions options = norm();
    options.frozen_gamma = true;
    return layers::batch_norm(scope, "features", x, options);
  }

  Value depthwise_tail(const Scope& scope, Value x) const {
    const Scope gdc = scope / "gdc";
    const std::int64_t channels = x.shape()[1];
    if (x.shape()[2] != x.shape()[3]) {
      throw ShapeError("iresnet: the GDC tail needs a square image");
    }
    x = layers::conv2d(gdc, "conv", x, channels, x.shape()[2], {.groups = channels}, weights);
    x = layers::batch_norm(gdc, "bn", x, norm());
    x = ops::flatten(x);
    const Initializer linear{Initializer::Kind::normal, 0,
                             std::sqrt(2.0 / static_cast<double>(embedding))};
    x = layers::linear(scope, "fc", x, embedding, false, linear);
    return features(scope, x);
  }
};

}  // namespace

FTRAIN_PLUGIN(iresnet, registry) {
  registry.add<ftrain::Backbone, IResNet>("iresnet", "IResNet of 18 to 200 layers");
}
