#include "core/runtime/communicator.h"

namespace ftrain {

Communicator::~Communicator() = default;

}  // namespace ftrain
