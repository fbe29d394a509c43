#include "plugins/optimizers/adamw.h"

#include "ftrain/optimizer/update_cuda.cuh"

template const void* ftrain::device_update<ftrain::AdamW>();
