#include "datasets/verification/bin_set.h"
#include "ftrain/plugin.h"

FTRAIN_PLUGIN(bin, registry) {
  registry.add<ftrain::PairSet, ftrain::BinSet>(
      "bin", "InsightFace's verification files: a pickle of encoded images and verdicts");
}
