// The circumstances and the file of what measuring kernels of the CPU answered.
#pragma once

#include <filesystem>

#include "core/compile/tuning_cache.h"
#include "ftrain/device/kernel.h"

namespace ftrain::cpu {

Circumstances circumstances_of(const KernelEnvironment& environment);

// kernels.json in the folder of caches; empty when the environment names none.
std::filesystem::path answers_file();

}  // namespace ftrain::cpu
