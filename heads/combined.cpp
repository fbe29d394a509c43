#include "heads/combined.h"

#include "ftrain/head/margin_cpu.h"
#include "ftrain/plugin.h"

namespace {

struct CombinedMargin final : ftrain::MarginHead {
  double m1 = 1, m2 = 0, m3 = 0;
  void configure(ftrain::Keys& keys) override {
    MarginHead::configure(keys);
    keys.bind("m1", m1, "factor on the angle with a sample's own class", ftrain::above(0));
    keys.bind("m2", m2, "angle added to it, in radians", ftrain::at_least(0));
    keys.bind("m3", m3, "subtracted from its cosine", ftrain::at_least(0));
  }
  std::shared_ptr<const ftrain::Margin> margin() const override {
    const ftrain::Combined formula{static_cast<float>(m1), static_cast<float>(m2),
                                   static_cast<float>(m3)};
    return std::make_shared<ftrain::HostMargin<ftrain::Combined>>("combined", formula, *this);
  }
};

}  // namespace

FTRAIN_PLUGIN(combined, registry) {
  registry.add<ftrain::MarginHead, CombinedMargin>(
      "combined", "cos(m1 theta + m2) - m3, all three margins together");
}
