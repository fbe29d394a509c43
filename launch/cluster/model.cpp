#include "launch/cluster/model.h"

#include <algorithm>
#include <cmath>

namespace ftrain::cluster {
namespace {

double number(std::int64_t value) {
  return static_cast<double>(value);
}

// One half of a ring, n ranks: a gather of `bytes` in all, or the scatter that is its mirror image.
double half_ring(double bytes, double n, double latency, double bandwidth) {
  return (n - 1) * (latency + bytes / n / bandwidth);
}

// The faster of a ring and of a tree up and down, whose pieces follow each other without a gap.
double all_reduce(double bytes, double n, double latency, double bandwidth) {
  if (n <= 1) return 0;
  const double tree = 2 * (std::ceil(std::log2(n)) * latency + bytes / bandwidth);
  return std::min(2 * half_ring(bytes, n, latency, bandwidth), tree);
}

}  // namespace

Ranks place(std::int64_t count, std::int64_t devices_of_node) {
  const std::int64_t each = std::max<std::int64_t>(1, std::min(count, devices_of_node));
  return {(count + each - 1) / each, each};
}

Traffic& Traffic::operator+=(const Traffic& other) {
  inside += other.inside;
  between += other.between;
  return *this;
}

// Within each node first, so that every device has its share of the tensor; those shares between
// nodes, all at once; within each node again.
double seconds(const Exchange& collective, const Ranks& ranks, const Links& links) {
  const double each = number(ranks.each), nodes = number(ranks.nodes), n = each * nodes;
  if (n <= 1) return 0;
  const double inside = links.inside.bandwidth / (links.inside.shared ? each : 1);
  const double between = links.between.bandwidth / (links.between.shared ? each : 1);
  const double share = collective.bytes / each;
  switch (collective.kind) {
    case Collective::none:
      break;
    case Collective::all_reduce:
      if (nodes <= 1) return all_reduce(collective.bytes, each, links.inside.latency, inside);
      return 2 * half_ring(collective.bytes, each, links.inside.latency, inside) +
             all_reduce(share, nodes, links.between.latency, between);
    case Collective::all_gather:
    case Collective::reduce_scatter:
      return half_ring(collective.bytes, each, links.inside.latency, inside) +
             half_ring(share, nodes, links.between.latency, between);
    case Collective::broadcast:
      return std::ceil(std::log2(n)) * (nodes > 1 ? links.between.latency : links.inside.latency) +
             std::max(each > 1 ? collective.bytes / inside : 0, nodes > 1 ? share / between : 0);
  }
  return 0;
}

Traffic traffic(const Exchange& collective, const Ranks& ranks) {
  const double each = number(ranks.each), nodes = number(ranks.nodes);
  const Traffic once{collective.bytes * (each - 1) / each,
                     collective.bytes / each * (nodes - 1) / nodes};
  const bool twice = collective.kind == Collective::all_reduce;
  return {once.inside * (twice ? 2 : 1), once.between * (twice ? 2 : 1)};
}

Traffic traffic(const std::vector<Exchange>& collectives, const Ranks& ranks) {
  Traffic sum;
  for (const Exchange& collective : collectives) sum += traffic(collective, ranks);
  return sum;
}

StepTime step_time(const Compute& compute, double window, const std::vector<Exchange>& collectives,
                   const Ranks& ranks, const Links& links, const Pace& pace, double host) {
  StepTime time;
  const bool alone = ranks.count() <= 1;
  time.compute = compute.total() * (alone ? 1 : 1 + pace.slowdown);
  for (const Exchange& collective : collectives) {
    (collective.overlaps ? time.overlapping : time.blocking) += seconds(collective, ranks, links);
  }
  time.exposed = std::max((1 - pace.overlap) * time.overlapping, time.overlapping - window);
  time.waiting = alone ? 0 : pace.wait * std::log2(number(ranks.count()));
  time.data = std::max(0.0, host - time.total());
  return time;
}

}  // namespace ftrain::cluster
