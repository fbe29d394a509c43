// A plugin whose setup throws.
#include <stdexcept>

#include "ftrain/plugin.h"

FTRAIN_PLUGIN(failing, registry) {
  (void)registry;
  throw std::runtime_error("no licence");
}
