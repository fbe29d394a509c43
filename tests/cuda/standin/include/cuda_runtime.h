// Stand-in for CUDA's header of this name: kernels as C++ functions of the host, each thread of a
// block a fiber, blocks one after another.
//
// What CUDA leaves undefined fails here: see standin.h.
#pragma once

#include <cuda_runtime_api.h>
#include <math.h>

#include "standin_math.h"
#include "standin_threads.h"
#include "standin_vectors.h"
