// What the plugin of an optimizer includes. Its device code includes
// ftrain/optimizer/update_cuda.cuh.
#pragma once

#include "ftrain/model/optimizer.h"
#include "ftrain/optimizer/update_cpu.h"
#include "ftrain/optimizer/update_formula.h"
#include "ftrain/plugin.h"
