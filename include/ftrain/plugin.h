// What a plugin includes: registration, configuration, errors. The interface that it implements
// (ftrain/model/backbone.h, ftrain/data/dataset.h, ...) comes beside it.
#pragma once

#include "ftrain/base/error.h"
#include "ftrain/config/keys.h"
#include "ftrain/plugin/abi.h"
#include "ftrain/plugin/api.h"
#include "ftrain/plugin/registry.h"
