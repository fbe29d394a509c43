#include "plugins/optimizers/sgd.h"

#include "plugins/optimizers/update_cuda.cuh"

template const void* ftrain::device_update<ftrain::Sgd>();
template const void* ftrain::device_update<ftrain::PlainSgd>();
