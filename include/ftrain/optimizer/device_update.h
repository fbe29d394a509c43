// What an optimizer's .cu gives to its plugin: the table of its device functions
// (ftrain/model/device_functions.h), which Update::cuda points to. Where nvcc compiles the .cu,
// FTRAIN_CUDA is defined.
#pragma once

namespace ftrain {

// Formula: see ftrain/optimizer/update_cuda.cuh.
template <class Formula>
const void* device_update();

}  // namespace ftrain
