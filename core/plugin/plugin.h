// What a plugin includes: registration, configuration, errors. The interface that it implements
// (core/model/backbone.h, core/data/dataset.h, ...) comes beside it.
#pragma once

#include "core/base/error.h"
#include "core/config/keys.h"
#include "core/plugin/abi.h"
#include "core/plugin/api.h"
#include "core/plugin/registry.h"
