#include "heads/softmax.h"

#include "ftrain/head/margin_cpu.h"
#include "ftrain/plugin.h"

namespace {

struct SoftmaxHead final : ftrain::MarginHead {
  SoftmaxHead() { scale = 1; }
  std::shared_ptr<const ftrain::Margin> margin() const override {
    return std::make_shared<ftrain::HostMargin<ftrain::Softmax<false>>>(
        "softmax", ftrain::Softmax<false>{}, *this);
  }
};

}  // namespace

FTRAIN_PLUGIN(softmax, registry) {
  registry.add<ftrain::MarginHead, SoftmaxHead>("softmax", "softmax over raw products");
}
