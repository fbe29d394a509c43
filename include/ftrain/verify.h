// What the plugin of a verification set includes.
#pragma once

#include "ftrain/data/image.h"
#include "ftrain/data/pair_set.h"
#include "ftrain/plugin.h"
