#include "heads/softmax.h"

#include "ftrain/head/margin_cuda.cuh"

template const void* ftrain::device_margin<ftrain::Softmax<false>>();
