#include "datasets/verification/tsv_set.h"
#include "ftrain/plugin.h"

FTRAIN_PLUGIN(tsv, registry) {
  registry.add<ftrain::PairSet, ftrain::TsvSet>(
      "tsv", "pair lists: lines of file, file, 1 or 0, separated by tabs");
}
