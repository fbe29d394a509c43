// Right build, but a backbone that was compiled with other headers of its kind.
#define kind_hashes true_kind_hashes
#include "ftrain_headers_hash.h"
#undef kind_hashes

namespace ftrain {
inline constexpr KindHash kind_hashes[] = {{"backbone", "000000000000"}};
}  // namespace ftrain

#include "ftrain/backbone.h"

namespace {

struct Old final : ftrain::Backbone {
  ftrain::Value forward(const ftrain::Scope&, ftrain::Value x) const override { return x; }
  void configure(ftrain::Keys&) override {}
};

}  // namespace

FTRAIN_PLUGIN(other_kind, registry) {
  registry.add<ftrain::Backbone, Old>("other_kind", "passes the image on");
}
