#include "ftrain/head/margin_cuda.cuh"
#include "heads/softmax.h"

template const void* ftrain::device_margin<ftrain::Softmax<true>>();
