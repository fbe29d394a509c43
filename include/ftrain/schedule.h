// What the plugin of a rate schedule includes.
#pragma once

#include "ftrain/model/schedule.h"
#include "ftrain/plugin.h"
