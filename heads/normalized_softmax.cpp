#include "ftrain/head/margin_cpu.h"
#include "ftrain/plugin.h"
#include "heads/softmax.h"

namespace {

struct NormalizedSoftmax final : ftrain::MarginHead {
  std::shared_ptr<const ftrain::Margin> margin() const override {
    return std::make_shared<ftrain::HostMargin<ftrain::Softmax<true>>>(
        "normalized_softmax", ftrain::Softmax<true>{}, *this);
  }
};

}  // namespace

FTRAIN_PLUGIN(normalized_softmax, registry) {
  registry.add<ftrain::MarginHead, NormalizedSoftmax>("normalized_softmax",
                                                      "softmax over cosines, no margin");
}
