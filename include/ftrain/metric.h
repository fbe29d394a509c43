// What the plugin of a verification metric includes.
#pragma once

#include "ftrain/plugin.h"
#include "ftrain/verify/metric.h"
