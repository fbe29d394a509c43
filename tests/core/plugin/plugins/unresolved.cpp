// Another build, which moreover calls a function that no core of today has.
#include "ftrain/plugin/abi.h"

namespace ftrain {
void function_of_long_ago();
}

extern "C" {
FTRAIN_API extern const FtrainPlugin ftrain_plugin_v1;
const FtrainPlugin ftrain_plugin_v1 = {sizeof(FtrainPlugin), "unresolved", "1",
                                       "abi1 gcc5 c++201103 cxx11abi0 headers 00000000",
                                       [](ftrain::Registry*) { ftrain::function_of_long_ago(); }};
}
