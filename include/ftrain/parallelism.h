// What the plugin of a strategy includes: where class centers and batches live.
#pragma once

#include "ftrain/model/head_pass.h"
#include "ftrain/model/parallelism.h"
#include "ftrain/model/report_scalar.h"
#include "ftrain/ops.h"
#include "ftrain/plugin.h"
