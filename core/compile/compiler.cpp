#include "core/compile/compiler.h"

#include <cstddef>
#include <optional>
#include <utility>

#include "core/compile/cached.h"
#include "core/compile/decompose.h"
#include "core/compile/fuse.h"
#include "core/compile/merge_updates.h"
#include "core/compile/overlap.h"
#include "core/compile/passes.h"
#include "core/compile/precision.h"
#include "core/compile/recompute.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {
namespace {

using Place = CompileTarget::Place;

std::size_t at(const Node& node) {
  return static_cast<std::size_t>(node.index);
}

bool is(const std::vector<bool>& marks, const Node& node) {
  return !marks.empty() && marks[at(node)];
}

// Before any other pass, which may then change what the op is made of.
std::optional<Refusals> without_any(const CompileTarget& target, const Node& node) {
  if (!target.kernels().of(node.op->name).empty()) return std::nullopt;
  return Refusals();
}

std::optional<Refusals> refused_by_all(const CompileTarget& target, const Node& node) {
  const KernelEnvironment environment = target.environment(node, false);
  Refusals refused;
  for (const KernelDef* def : target.kernels().of(node.op->name)) {
    std::string reason = def->refuse ? def->refuse(node, environment) : std::string();
    if (reason.empty()) return std::nullopt;
    refused.emplace_back(def->name, std::move(reason));
  }
  return refused;
}

struct Needs {
  std::vector<std::size_t> scratch;
  std::vector<int> overwrites;
};

// Each kernel is made once, here: the plan asks it, and an executable binds it.
Needs make_kernels(Program& program, CompileTarget& target) {
  const auto nodes = static_cast<std::size_t>(program.graph->size());
  program.kernels.resize(nodes);
  program.instances.resize(nodes);
  Needs needs{std::vector<std::size_t>(nodes, 0), std::vector<int>(nodes, -1)};
  for (std::size_t n = 0; n < nodes; ++n) {
    const Node& node = program.graph->node(static_cast<std::int32_t>(n));
    if (node.op->leaf || node.op->view) continue;
    program.kernels[n] = target.choose(node);
    const bool beside = target.options().overlap && is_collective(node) && !is(program.kept, node);
    program.instances[n] = program.kernels[n].def->make(node, target.environment(node, beside));
    needs.scratch[n] = program.instances[n]->scratch_bytes();
    needs.overwrites[n] = program.instances[n]->overwrites();
  }
  return needs;
}

}  // namespace

CompileTarget::~CompileTarget() = default;

KernelChoice CompileTarget::choose(const Node& node) {
  return kernels().choose(node, environment(node, false));
}

std::unique_ptr<Graph> CompileTarget::rewrite(Place, std::unique_ptr<Graph> graph) {
  return graph;
}

std::unique_ptr<Graph> CompileTarget::arrange(std::unique_ptr<Graph> graph, const StateStore*) {
  return graph;
}

Rewritten CompileTarget::finish(std::unique_ptr<Graph> graph) {
  std::vector<bool> kept = kept_nodes(*graph);
  return {std::move(graph), std::move(kept)};
}

bool CompileTarget::takes_fused_norm(const TensorType&) const {
  return false;
}

Rewritten rewrite_graph(const Graph& graph, CompileTarget& target, const StateStore* store,
                        std::vector<Decomposed>* decomposed) {
  std::vector<Decomposed> unwanted;
  std::vector<Decomposed>& done = decomposed != nullptr ? *decomposed : unwanted;
  const CompileOptions& options = target.options();
  std::unique_ptr<Graph> now = decompose(
      graph, [&](const Node& node) { return without_any(target, node); }, done);
  now = remove_dead(*merge_common(now ? *now : graph));
  if (options.rewrite) {
    now = target.rewrite(Place::plain, std::move(now));
    now = recompute(*now, options.recompute);
  }
  if (options.narrow) now = lower_precision(*now, *options.narrow);
  if (options.rewrite) {
    now = remove_dead(*target.arrange(std::move(now), store));
    now = target.rewrite(Place::arranged, std::move(now));
    const auto taken = [&](const TensorType& type) { return target.takes_fused_norm(type); };
    now = remove_dead(*fuse(*now, taken));
    now = merge_updates(*now);
    now = target.rewrite(Place::fused, std::move(now));
  }
  auto plainer = decompose(
      *now, [&](const Node& node) { return refused_by_all(target, node); }, done);
  if (plainer) now = remove_dead(*plainer);
  if (options.overlap) now = advance_collectives(*now);
  if (!options.rewrite) return {std::move(now), {}};
  return target.finish(std::move(now));
}

Program compile_graph(const Graph& graph, CompileTarget& target, const StateStore* store) {
  Program program;
  Rewritten rewritten = rewrite_graph(graph, target, store, &program.decomposed);
  program.graph = std::move(rewritten.graph);
  program.kept = std::move(rewritten.kept);
  const Needs needs = make_kernels(program, target);
  const CompileOptions& options = target.options();
  const std::vector<bool> lasting = lasting_nodes(*program.graph, program.kept);
  const std::vector<std::int32_t> busy =
      options.overlap ? first_waits(*program.graph) : std::vector<std::int32_t>();
  program.plan = plan_memory(
      *program.graph,
      {.alignment = options.alignment,
       .scratch = [&](const Node& node) { return needs.scratch[at(node)]; },
       .overwrites = [&](const Node& node) { return needs.overwrites[at(node)]; },
       .keep = [&](const Node& node) { return is(lasting, node); },
       .busy_until = [&](const Node& node) { return busy.empty() ? node.index : busy[at(node)]; },
       .host_apart = options.host_apart});
  return program;
}

Program Device::prepare(const Graph& graph, const StateStore* store, Communicator* communicator) {
  return compile_graph(graph, *target(graph, communicator), store);
}

}  // namespace ftrain
