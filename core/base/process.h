// What the operating system says of this process.
#pragma once

#include <cstddef>

#include "ftrain/plugin/api.h"

namespace ftrain {

// The largest resident set so far (VmHWM).
FTRAIN_API std::size_t peak_memory_bytes();
// The resident set now (VmRSS).
FTRAIN_API std::size_t memory_bytes();
// What this process may still take: what the machine has available, or less where a control group
// limits the process.
FTRAIN_API std::size_t available_memory_bytes();

}  // namespace ftrain
