// Built for ABI number 2, whose descriptor this ftrain cannot know.
#include "ftrain/plugin/api.h"

extern "C" {
FTRAIN_API extern const char* const ftrain_plugin_v2;
const char* const ftrain_plugin_v2 = "another layout";
}
