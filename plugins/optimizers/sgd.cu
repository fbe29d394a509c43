#include "plugins/optimizers/sgd.h"

#include "ftrain/optimizer/update_cuda.cuh"

template const void* ftrain::device_update<ftrain::Sgd>();
template const void* ftrain::device_update<ftrain::PlainSgd>();
