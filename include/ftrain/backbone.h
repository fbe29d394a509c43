// What the plugin of a backbone includes: its interface, layers, and the ops that they are made of.
#pragma once

#include "ftrain/model/backbone.h"
#include "ftrain/model/layers.h"
#include "ftrain/model/report_scalar.h"
#include "ftrain/ops.h"
#include "ftrain/plugin.h"
