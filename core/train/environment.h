// What a run ran on, for whoever reads its folder later.
#pragma once

#include <string>

namespace ftrain {

// environment.json of a run folder: version, host, kernel, device, command line's environment.
std::string environment_json(const std::string& device);

}  // namespace ftrain
