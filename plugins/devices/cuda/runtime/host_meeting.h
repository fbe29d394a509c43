// Whether ranks that are threads of one process may wait for each other in functions of the host.
//
// CUDA may run the host functions of all streams of a process on one thread, one after another:
// there a rank that waits in one for another rank waits for ever. Tried once, before the first
// step, where the communicator is called from such functions.
#pragma once

#include <chrono>

#include "ftrain/device/communicator.h"
#include "plugins/devices/cuda/runtime/machine.h"

namespace ftrain::cuda {

// Collective. DeviceError with the way out when the ranks of this process, one for each Machine in
// it, do not meet in that time.
void check_host_calls_meet(const Machine& machine, Communicator& communicator,
                           std::chrono::milliseconds limit = std::chrono::seconds(20));

}  // namespace ftrain::cuda
