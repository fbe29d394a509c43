// A sound plugin with two entries.
#include "ftrain/plugin.h"
#include "tests/core/plugin/greeter.h"

namespace {

class Polite : public Greeter {
 public:
  void configure(ftrain::Keys& keys) override {
    keys.bind("whom", whom_, "whom to greet", ftrain::one_of({"you", "world", "nobody"}));
  }
  std::string greet() override {
    if (whom_ == "nobody") throw ftrain::DataError("nobody is there");
    return "good day, " + whom_;
  }

 private:
  std::string whom_ = "you";
};

}  // namespace

FTRAIN_PLUGIN(polite, registry) {
  registry.add<Greeter, Polite>("polite", "greets");
  registry.add<Greeter, Polite>("very_polite", "greets as well");
}
