// A backbone of one's own: two strided convolutions, a pool and a linear layer.
#include "ftrain/backbone.h"

struct Tiny final : ftrain::Backbone {
  std::int64_t width = 64;

  void configure(ftrain::Keys& keys) override {
    keys.bind("width", width, "width of the embedding", ftrain::at_least(1));
  }
  ftrain::Value forward(const ftrain::Scope& scope, ftrain::Value x) const override {
    namespace layers = ftrain::layers;
    const ftrain::Initializer normal{ftrain::Initializer::Kind::normal, 0, 0.1};
    for (const std::string name : {"stem", "body"}) {
      x = layers::conv2d(scope, name, x, 32, 3, {.stride = 2, .padding = 1}, normal);
      x = layers::batch_norm(scope, name + "_norm", x);
      x = layers::prelu(scope, name + "_slope", x);
    }
    x = layers::linear(scope, "fc", ftrain::ops::global_average_pool(x), width, false, normal);
    // Every step's line says how long the features are.
    ftrain::report_scalar(scope, "feature_norm", ftrain::ops::sqrt(ftrain::ops::squared_norm({x})));
    return layers::batch_norm(scope, "features", x);
  }
};

FTRAIN_PLUGIN(tiny, registry) {
  registry.add<ftrain::Backbone, Tiny>("tiny", "two layers");
}
