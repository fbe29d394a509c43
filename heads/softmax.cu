#include "heads/softmax.h"

#include "heads/margin_cuda.cuh"

template const void* ftrain::device_margin<ftrain::Softmax<false>>();
