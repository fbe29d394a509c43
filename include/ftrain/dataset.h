// What the plugin of a data set includes.
#pragma once

#include "ftrain/data/dataset.h"
#include "ftrain/data/image.h"
#include "ftrain/plugin.h"
