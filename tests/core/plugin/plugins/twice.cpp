// Adds one entry of its own, then one that the plugin `polite` has too.
#include "ftrain/plugin.h"
#include "tests/core/plugin/greeter.h"

namespace {

struct Curt : Greeter {
  std::string greet() override { return "hi"; }
};

}  // namespace

FTRAIN_PLUGIN(twice, registry) {
  registry.add<Greeter, Curt>("twice", "short");
  registry.add<Greeter, Curt>("polite", "taken");
}
