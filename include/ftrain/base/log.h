// Plain lines to the log: standard error, and `log.txt` of the run folder once it is open.
//
// A line is composed by the caller; this header sees no formatting library. Threads: every function
// may be called from any thread.
#pragma once

#include <filesystem>
#include <string_view>

#include "ftrain/plugin/api.h"

namespace ftrain::log {

FTRAIN_API void info(std::string_view line);
FTRAIN_API void warning(std::string_view line);

// Lines go to `path` too from now on (appended); an empty path closes the file.
FTRAIN_API void also_to(const std::filesystem::path& path);

// Silences info lines on standard error (files still get them): for commands whose output is read
// by programs, and for ranks other than the first.
FTRAIN_API void quiet(bool on);

// What lines on standard error begin with from now on: a rank's name where several ranks share the
// screen.
FTRAIN_API void speak_as(std::string_view name);

}  // namespace ftrain::log
