// Right ABI number, another build.
#include "ftrain/plugin/abi.h"

extern "C" {
FTRAIN_API extern const FtrainPlugin ftrain_plugin_v1;
const FtrainPlugin ftrain_plugin_v1 = {sizeof(FtrainPlugin), "other_build", "1",
                                       "abi1 gcc4 c++199711 cxx11abi0 headers 00000000",
                                       [](ftrain::Registry*) { __builtin_trap(); }};
}
