// The one way in which kernels are started, shared with the heads' and optimizers' device code.
#pragma once

#include "ftrain/cuda/launch.cuh"
