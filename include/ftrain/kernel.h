// What a plugin of ops and kernels includes: definitions, gradients, kernels for devices.
#pragma once

#include "ftrain/cuda/context.h"
#include "ftrain/device/kernel.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "ftrain/plugin.h"
