// gelu(x) = x Phi(x), Phi being the distribution function of the normal distribution, in its exact
// form by erf. Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), arXiv:1606.08415.
//
// An op of one's own: its definition with its gradient (gelu.cpp), its kernels for the CPU
// (gelu_cpu.cpp) and for NVIDIA GPUs (gelu_cuda.cu). No op of ftrain's computes erf, so it has no
// decomposition: a device without a kernel for it refuses the job and says so.
#pragma once

#include <cmath>

#include "ftrain/kernel.h"

#ifdef __CUDACC__
#define GELU_HD __host__ __device__
#else
#define GELU_HD
#endif

namespace gelu {

// Elements of floating x, of any shape.
ftrain::Value gelu(ftrain::Value x);
// dy gelu'(x).
ftrain::Value gelu_grad(ftrain::Value dy, ftrain::Value x);

template <class T>
struct Forward {
  GELU_HD static T of(T x) {
    const T half = T(0.5), root_half = T(0.70710678118654752);
    return half * x * (T(1) + erf(x * root_half));
  }
};

template <class T>
struct Backward {
  GELU_HD static T of(T dy, T x) {
    const T half = T(0.5), root_half = T(0.70710678118654752);
    const T density = T(0.39894228040143268) * exp(-half * x * x);  // 1 / sqrt(2 pi)
    return dy * (half * (T(1) + erf(x * root_half)) + x * density);
  }
};

// Why a kernel that walks over elements as they lie cannot do a node: all its tensors must be of
// one type and one layout, whichever, and of a type that is taken.
std::string refuse_mixed(const ftrain::Node& node);
std::string refuse_but_f32(const ftrain::Node& node, const ftrain::KernelEnvironment&);

void add_cpu_kernels(ftrain::Registry& registry);
void add_cuda_kernels(ftrain::Registry& registry);

}  // namespace gelu
