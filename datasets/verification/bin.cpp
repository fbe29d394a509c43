#include "core/plugin/plugin.h"
#include "datasets/verification/bin_set.h"

FTRAIN_PLUGIN(bin, registry) {
  registry.add<ftrain::PairSet, ftrain::BinSet>(
      "bin", "InsightFace's verification files: a pickle of encoded images and verdicts");
}
