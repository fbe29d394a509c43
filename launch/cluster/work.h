// What one rank does in a step, counted from the step's graph.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "launch/cluster/description.h"
#include "launch/cluster/model.h"

namespace ftrain::cluster {

// Of the graph as it is built, before a device rewrites it: plain ops in fp32.
struct Work {
  struct Part {
    double flops = 0;
    double elements = 0;  // of activations and parameters, read and written by plain ops
  };
  double samples = 0;  // of a rank
  double parts = 1;    // the step takes them in so many
  Part forward, backward;
  double center_flops = 0, center_bytes = 0;
  double update_bytes = 0;
  std::vector<Exchange> collectives;
};

// `graph`: a training step; `parts`: as its accumulation has it.
Work work_of(const Graph& graph, std::int64_t parts);

// `measured`: what the device was measured to do with the network; nullptr: by counting.
Compute compute_of(const Work& work, const DeviceDescription& device, const std::string& precision,
                   const Measured* measured);

}  // namespace ftrain::cluster
