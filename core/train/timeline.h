// What ranks did in one step, as a file that chrome://tracing and Perfetto show.
#pragma once

#include <filesystem>
#include <vector>

#include "ftrain/device/device.h"

namespace ftrain {

// Writes FOLDER/timeline-rank-RANK.json in the Trace Event Format: one process a rank, a line for
// kernels and one for collectives.
void write_timeline(const std::filesystem::path& folder, int rank,
                    const std::vector<TimelineEvent>& events);

}  // namespace ftrain
