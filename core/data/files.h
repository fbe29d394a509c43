// Words for paths that are not as a data set expects them.
#pragma once

#include <filesystem>
#include <string_view>

#include "ftrain/base/error.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// The error for a path that does not exist: names the nearest folder that does and what in it has a
// name near the missing one. `what` is "file", "folder", ...
FTRAIN_API DataError missing_path(const std::filesystem::path& path, std::string_view what);

}  // namespace ftrain
