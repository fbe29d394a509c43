// Visibility and ABI constants. The only header of core that every other header may include.
#pragma once

// Core is built with hidden visibility; what others may call or derive from is marked.
#define FTRAIN_API __attribute__((visibility("default")))

// Raised whenever the layout of FtrainPlugin, or the meaning of `setup`, changes. It is part of the
// exported symbol's name, so a plugin of another number is recognised before anything of it runs.
#define FTRAIN_ABI 1

// Functions that both the host compiler and nvcc compile.
#ifdef __CUDACC__
#define FTRAIN_HD __host__ __device__
#else
#define FTRAIN_HD
#endif
