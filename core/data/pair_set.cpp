#include "ftrain/data/pair_set.h"

namespace ftrain {

PairSet::~PairSet() = default;

}  // namespace ftrain
