// What the plugin of a margin head includes. Its device code includes ftrain/head/margin_cuda.cuh.
#pragma once

#include "ftrain/head/margin_cpu.h"
#include "ftrain/head/margin_formula.h"
#include "ftrain/model/head_graph.h"
#include "ftrain/model/margin_head.h"
#include "ftrain/plugin.h"
