// What the plugin of an optimizer includes. Its device code includes
// ftrain/optimizer/update_cuda.cuh.
#pragma once

#include "ftrain/model/optimizer.h"
#include "ftrain/optimizer/device_update.h"
#include "ftrain/plugin.h"
