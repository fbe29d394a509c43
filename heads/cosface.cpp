#include "ftrain/head/margin_cpu.h"
#include "ftrain/plugin.h"
#include "heads/combined.h"

namespace {

struct CosFace final : ftrain::MarginHead {
  double shift = 0.4;
  void configure(ftrain::Keys& keys) override {
    MarginHead::configure(keys);
    keys.bind("margin", shift, "subtracted from the cosine with a sample's own class",
              ftrain::at_least(0));
  }
  std::shared_ptr<const ftrain::Margin> margin() const override {
    return std::make_shared<ftrain::HostMargin<ftrain::Combined>>(
        "cosface", ftrain::Combined{1, 0, static_cast<float>(shift)}, *this);
  }
};

}  // namespace

FTRAIN_PLUGIN(cosface, registry) {
  registry.add<ftrain::MarginHead, CosFace>("cosface", "additive cosine margin: cos(theta) - m");
}
