// What the plugin of a device includes: the interfaces to hardware.
#pragma once

#include "ftrain/device/device.h"
#include "ftrain/device/kernel.h"
#include "ftrain/model/device_functions.h"
#include "ftrain/plugin.h"
