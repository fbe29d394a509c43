// The scalars that a graph reports, for whoever reads them (see ftrain/model/report_scalar.h).
#pragma once

#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

struct ReportedScalar {
  std::string name;                  // without the prefix
  std::vector<std::string> fetches;  // of the parts of the step that report it: their mean is told
};

// In the order in which they were first reported.
FTRAIN_API std::vector<ReportedScalar> reported_scalars(const Graph& graph);

}  // namespace ftrain
