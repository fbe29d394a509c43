#include "heads/combined.h"
#include "heads/margin_cuda.cuh"

template const void* ftrain::device_margin<ftrain::Combined>();
