#include "ftrain/device/plan.h"

#include <algorithm>
#include <numeric>

#include "ftrain/graph/opdef.h"

namespace ftrain {
namespace {

// A run of bytes that is alive from node `first` to node `last`, both included. `used` is the last
// node that works with it; beyond that a node that works beside others may still be at it.
struct Tenant {
  std::size_t bytes = 0, offset = 0;
  std::int32_t first = 0, last = 0, used = 0;
};

struct LastUse {
  std::int32_t used = 0, last = 0;  // as a tenant's
};

class Planner {
 public:
  Planner(const Graph& graph, const PlanRequest& request) : graph_(graph), request_(request) {}

  Plan run() {
    const auto nodes = static_cast<std::size_t>(graph_.size());
    plan_.values.resize(nodes);
    plan_.scratch.resize(nodes);
    tenant_of_.resize(nodes);
    find_last_uses();
    for (std::int32_t i = 0; i < graph_.size(); ++i) place(graph_.node(i));
    pack();
    assign();
    return std::move(plan_);
  }

 private:
  std::size_t aligned(std::size_t bytes) const {
    const std::size_t a = request_.alignment;
    return (std::max<std::size_t>(bytes, 1) + a - 1) / a * a;
  }

  // The value whose storage this one is.
  Value root(Value value) const {
    while (value.node().op->view) value = value.node().inputs[0];
    return value;
  }

  void find_last_uses() {
    last_use_.resize(static_cast<std::size_t>(graph_.size()));
    for (std::int32_t i = 0; i < graph_.size(); ++i) {
      const Node& node = graph_.node(i);
      const std::int32_t done = std::max(i, busy_until(node) - 1);
      last_use_[static_cast<std::size_t>(i)].assign(node.outputs.size(), {i, done});
      for (const Value& input : node.inputs) {
        if (input.valid()) extend(root(input), i, done);
      }
    }
    const std::int32_t end = graph_.size();
    for (const Graph::Named& fetch : graph_.fetches()) extend(root(fetch.value), end, end);
    for (std::int32_t i = 0; i < graph_.size(); ++i) {
      const Node& node = graph_.node(i);
      if (!keeps(node)) continue;
      last_use_[static_cast<std::size_t>(i)].assign(node.outputs.size(), {end, end});
    }
  }

  std::int32_t busy_until(const Node& node) const {
    return request_.busy_until ? request_.busy_until(node) : node.index;
  }
  bool beside(const Node& node) const { return busy_until(node) > node.index; }

  void extend(Value value, std::int32_t used, std::int32_t last) {
    LastUse& use = last_use(value);
    use.used = std::max(use.used, used);
    use.last = std::max(use.last, last);
  }

  bool keeps(const Node& node) const { return request_.keep && request_.keep(node); }

  LastUse& last_use(Value value) {
    return last_use_[static_cast<std::size_t>(value.node_index())]
                    [static_cast<std::size_t>(value.output())];
  }

  void place(const Node& node) {
    const auto n = static_cast<std::size_t>(node.index);
    plan_.values[n].resize(node.outputs.size());
    tenant_of_[n].assign(node.outputs.size(), -1);
    if (node.op->leaf) {
      place_leaf(node);
      return;
    }
    if (node.op->view) return;
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const Value value(const_cast<Graph*>(&graph_), node.index, static_cast<std::int32_t>(o));
      if (take_over(node, value)) continue;
      tenant_of_[n][o] = static_cast<std::int32_t>(tenants_.size());
      const std::int32_t first = keeps(node) ? 0 : node.index;
      const LastUse& use = last_use(value);
      tenants_.push_back({aligned(node.outputs[o].bytes()), 0, first, use.last, use.used});
    }
    const std::size_t scratch = request_.scratch ? request_.scratch(node) : 0;
    if (scratch > 0) {
      scratch_tenant_.emplace_back(node.index, static_cast<std::int32_t>(tenants_.size()));
      const std::int32_t last = std::max(node.index, busy_until(node) - 1);
      tenants_.push_back({aligned(scratch), 0, node.index, last, node.index});
    }
  }

  void place_leaf(const Node& node) {
    Block& block = plan_.values[static_cast<std::size_t>(node.index)][0];
    const std::size_t bytes = aligned(node.outputs[0].bytes());
    const Graph::State* const state =
        graph_.state_of(Value(const_cast<Graph*>(&graph_), node.index, 0));
    if (state != nullptr && request_.host_apart && state->spec.memory == StateSpec::Memory::host) {
      block = {Block::Home::host, plan_.host_bytes, bytes};
      plan_.host_bytes += bytes;
      return;
    }
    block = {Block::Home::resident, plan_.resident_bytes, bytes};
    plan_.resident_bytes += bytes;
    if (state != nullptr) plan_.state_bytes += bytes;
  }

  // An output moves into an input that dies here, when the kernel allows it.
  bool take_over(const Node& node, Value value) {
    const int asked = request_.overwrites ? request_.overwrites(node) : -1;
    const int i = asked == -2 ? value.output() : value.output() == 0 ? asked : -1;
    if (i < 0 || keeps(node)) return false;
    const Value owner = root(node.inputs[static_cast<std::size_t>(i)]);
    const std::int32_t tenant = tenant_of_[static_cast<std::size_t>(owner.node_index())]
                                          [static_cast<std::size_t>(owner.output())];
    if (tenant < 0 || last_use(owner).used != node.index) return false;
    Tenant& t = tenants_[static_cast<std::size_t>(tenant)];
    // Another value may have taken over the same run and outlive this node. A node that works
    // beside others comes after those that do too, so it need not mind them.
    if ((beside(node) ? t.used : t.last) != node.index) return false;
    if (t.bytes != aligned(value.type().bytes())) return false;
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
      if (k == static_cast<std::size_t>(i) || !node.inputs[k].valid()) continue;
      if (root(node.inputs[k]) == owner) return false;
    }
    const LastUse& use = last_use(value);
    t.used = std::max(t.used, use.used);
    t.last = std::max(t.last, use.last);
    tenant_of_[static_cast<std::size_t>(node.index)][static_cast<std::size_t>(value.output())] =
        tenant;
    return true;
  }

  // Several orders, the best of them: no one order is good for every network.
  void pack() {
    measure();
    using Key = double (*)(const Tenant&);
    static constexpr Key orders[] = {
        [](const Tenant& t) { return static_cast<double>(t.bytes); },
        [](const Tenant& t) {
          return static_cast<double>(t.bytes) * static_cast<double>(t.last - t.first + 1);
        },
        [](const Tenant& t) { return static_cast<double>(t.last - t.first); },
        [](const Tenant& t) { return -static_cast<double>(t.first); },
        [](const Tenant& t) { return static_cast<double>(t.last); }};
    std::vector<std::size_t> best;
    for (const Key key : orders) {
      std::vector<std::size_t> order(tenants_.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return key(tenants_[a]) > key(tenants_[b]);
      });
      std::vector<std::size_t> offsets(tenants_.size());
      const std::size_t bytes = pack_in(order, offsets);
      if (!best.empty() && bytes >= plan_.arena_bytes) continue;
      plan_.arena_bytes = bytes;
      best = std::move(offsets);
      if (bytes == plan_.arena_floor) break;
    }
    for (std::size_t k = 0; k < best.size(); ++k) tenants_[k].offset = best[k];
  }

  // Each tenant goes into the smallest gap that holds it among those alive with it, else to the
  // end. Returns the arena's bytes.
  std::size_t pack_in(const std::vector<std::size_t>& order,
                      std::vector<std::size_t>& offsets) const {
    std::size_t bytes = 0;
    std::vector<std::size_t> placed;  // by offset
    for (const std::size_t k : order) {
      const Tenant& t = tenants_[k];
      std::size_t end = 0, best = 0, best_gap = 0;
      bool found = false;
      for (const std::size_t p : placed) {
        const Tenant& other = tenants_[p];
        if (other.last < t.first || t.last < other.first) continue;
        if (offsets[p] > end) {
          const std::size_t gap = offsets[p] - end;
          if (gap >= t.bytes && (!found || gap < best_gap)) {
            best = end;
            best_gap = gap;
            found = true;
          }
        }
        end = std::max(end, offsets[p] + other.bytes);
      }
      offsets[k] = found ? best : end;
      bytes = std::max(bytes, offsets[k] + t.bytes);
      placed.insert(
          std::upper_bound(placed.begin(), placed.end(), k,
                           [&](std::size_t a, std::size_t b) { return offsets[a] < offsets[b]; }),
          k);
    }
    return bytes;
  }

  void assign() {
    for (std::int32_t i = 0; i < graph_.size(); ++i) {
      const Node& node = graph_.node(i);
      auto& blocks = plan_.values[static_cast<std::size_t>(i)];
      for (std::size_t o = 0; o < blocks.size(); ++o) {
        if (node.op->view) {
          const Value owner = root(node.inputs[0]);
          blocks[o] = plan_.values[static_cast<std::size_t>(owner.node_index())]
                                  [static_cast<std::size_t>(owner.output())];
        } else if (const std::int32_t tenant = tenant_of_[static_cast<std::size_t>(i)][o];
                   tenant >= 0) {
          const Tenant& t = tenants_[static_cast<std::size_t>(tenant)];
          blocks[o] = {Block::Home::arena, t.offset, t.bytes};
        }
      }
    }
    for (const auto& [node, tenant] : scratch_tenant_) {
      const Tenant& t = tenants_[static_cast<std::size_t>(tenant)];
      plan_.scratch[static_cast<std::size_t>(node)] = {Block::Home::arena, t.offset, t.bytes};
    }
  }

  void measure() {
    std::vector<std::int64_t> change(static_cast<std::size_t>(graph_.size()) + 2, 0);
    for (const Tenant& t : tenants_) {
      change[static_cast<std::size_t>(t.first)] += static_cast<std::int64_t>(t.bytes);
      change[static_cast<std::size_t>(t.last) + 1] -= static_cast<std::int64_t>(t.bytes);
    }
    std::int64_t alive = 0;
    for (std::size_t i = 0; i < change.size(); ++i) {
      alive += change[i];
      if (alive > static_cast<std::int64_t>(plan_.arena_floor)) {
        plan_.arena_floor = static_cast<std::size_t>(alive);
        plan_.peak_node = static_cast<std::int32_t>(i);
      }
    }
  }

  const Graph& graph_;
  const PlanRequest& request_;
  Plan plan_;
  std::vector<Tenant> tenants_;
  std::vector<std::vector<std::int32_t>> tenant_of_;  // by node, output; -1: none of its own
  std::vector<std::vector<LastUse>> last_use_;        // by node, output
  std::vector<std::pair<std::int32_t, std::int32_t>> scratch_tenant_;  // node, tenant
};

}  // namespace

Plan plan_memory(const Graph& graph, const PlanRequest& request) {
  return Planner(graph, request).run();
}

}  // namespace ftrain
