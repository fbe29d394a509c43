#include "ftrain/head/margin_cuda.cuh"
#include "heads/combined.h"

template const void* ftrain::device_margin<ftrain::Combined>();
