#include "ftrain/model/margin_head.h"

#include "ftrain/model/head_graph.h"

namespace ftrain {

MarginHead::~MarginHead() = default;

void MarginHead::configure(Keys& keys) {
  keys.bind("scale", scale, "factor on the logits", above(0));
  keys.bind("gradient", gradient,
            "exact: through the margin; straight_through: slope 1, as arcface_torch",
            one_of(std::vector<std::string>{"exact", "straight_through"}));
  keys.bind("interclass_filtering_threshold", filter,
            "cosines with other classes above it are taken as 0 (noisy labels); absent: none",
            between(0, 1));
}

std::unique_ptr<HeadGraph> MarginHead::graph_half() const {
  return nullptr;
}

HeadGraph::~HeadGraph() = default;

void HeadGraph::statistics(const Scope&, const HeadSignals&) {}

void HeadGraph::finish(const Scope&, Value) {}

}  // namespace ftrain
