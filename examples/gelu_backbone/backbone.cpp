// A small backbone whose activations are GELUs, and the plugin that brings all of it.
#include "ftrain/backbone.h"

#include "gelu.h"

namespace {

struct GeluBackbone final : ftrain::Backbone {
  std::int64_t width = 64;

  void configure(ftrain::Keys& keys) override {
    keys.bind("width", width, "width of the embedding", ftrain::at_least(1));
  }
  ftrain::Value forward(const ftrain::Scope& scope, ftrain::Value x) const override {
    namespace layers = ftrain::layers;
    const ftrain::Initializer normal{ftrain::Initializer::Kind::normal, 0, 0.1};
    for (const std::string name : {"stem", "body"}) {
      x = layers::conv2d(scope, name, x, 32, 3, {.stride = 2, .padding = 1}, normal);
      x = gelu::gelu(layers::batch_norm(scope, name + "_norm", x));
    }
    x = layers::linear(scope, "fc", ftrain::ops::global_average_pool(x), width, false, normal);
    return layers::batch_norm(scope, "features", x);
  }
};

}  // namespace

FTRAIN_PLUGIN(gelu, registry) {
  registry.add<ftrain::Backbone, GeluBackbone>("gelu", "two layers with GELUs between them");
  gelu::add_cpu_kernels(registry);
#ifdef FTRAIN_CUDA
  gelu::add_cuda_kernels(registry);
#endif
}
