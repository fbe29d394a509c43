#include "ftrain/head/margin_cpu.h"
#include "ftrain/plugin.h"
#include "heads/combined.h"

namespace {

struct ArcFace final : ftrain::MarginHead {
  double angle = 0.5;
  void configure(ftrain::Keys& keys) override {
    MarginHead::configure(keys);
    keys.bind("margin", angle, "angle added to the one with a sample's own class, in radians",
              ftrain::at_least(0));
  }
  std::shared_ptr<const ftrain::Margin> margin() const override {
    return std::make_shared<ftrain::HostMargin<ftrain::Combined>>(
        "arcface", ftrain::Combined{1, static_cast<float>(angle), 0}, *this);
  }
};

}  // namespace

FTRAIN_PLUGIN(arcface, registry) {
  registry.add<ftrain::MarginHead, ArcFace>("arcface", "additive angular margin: cos(theta + m)");
}
