// Opens a plugin library and checks that it fits this build. Private to core/plugin; loader.cpp is
// the one file that sees Boost.DLL.
#pragma once

#include <filesystem>

#include "ftrain/plugin/abi.h"

namespace ftrain {

// The descriptor of the plugin in `file`, which stays loaded for the life of the process.
// PluginError when the file is no plugin, or was built for another ABI or another build.
const FtrainPlugin& load_plugin(const std::filesystem::path& file);

// The folder `ftrain` beside libftrain_core.so, where an installation keeps its plugins.
std::filesystem::path installed_plugins();

}  // namespace ftrain
