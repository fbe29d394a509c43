// What the plugin of a communicator includes.
#pragma once

#include "ftrain/device/communicator.h"
#include "ftrain/plugin.h"
