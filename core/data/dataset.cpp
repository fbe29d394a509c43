#include "ftrain/data/dataset.h"

namespace ftrain {

Dataset::~Dataset() = default;

}  // namespace ftrain
