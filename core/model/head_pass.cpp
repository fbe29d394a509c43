#include "ftrain/model/head_pass.h"

#include <string>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

void check(const StepBuild& build, const HeadTerms& made, Value norms) {
  const std::string name = build.margin->text();
  if (made.terms.size() > static_cast<std::size_t>(most_margin_terms)) {
    throw ConfigError("[head] " + name + ": a graph half gives " +
                      std::to_string(most_margin_terms) + " terms at most, not " +
                      std::to_string(made.terms.size()));
  }
  for (const Value& term : made.terms) {
    if (term.type() == norms.type()) continue;
    throw ShapeError("[head] " + name + ": a term must be " + norms.type().text() +
                     ", a number a row; got " + term.type().text());
  }
  if (!made.term_gradient) return;
  if (build.head->graph.statistics_of() != HeadGraph::Statistics::none) {
    throw ConfigError("[head] " + name +
                      ": no gradient goes through statistics of the batch; terms that are made of "
                      "them take term_gradient = false");
  }
  if (build.margin->f64.target_term_slopes == nullptr) {
    throw ConfigError("[head] " + name +
                      ": term_gradient wants a margin with target_term_slopes: add that function "
                      "to the functor");
  }
}

}  // namespace

HeadPass::HeadPass(const StepBuild& build, const HeadSignals& own, bool gathered)
    : build_(build), gathered_(gathered) {
  if (build.head == nullptr) return;
  if (build.parts == 1) statistics(build, own);
  own_ = build.head->graph.terms(build.head->scope, own);
  check(build, own_, own.norms);
  std::vector<Value> rows;
  for (const Value& term : own_.terms) {
    const Value all = gathered ? ops::all_gather(term, build.ranks) : term;
    rows.push_back(ops::reshape(all, {1, all.shape()[0]}));
  }
  if (!rows.empty()) terms_ = ops::concat_rows(rows);
}

Value HeadPass::add_loss(Value loss) const {
  if (!own_.extra_loss.valid()) return loss;
  const Value sum = ops::all_reduce_sum(own_.extra_loss, build_.ranks);
  return ops::add(loss, ops::scale(sum, 1.0 / static_cast<double>(build_.ranks * build_.parts)));
}

void HeadPass::add_seeds(std::vector<Seed>& seeds, Value target, Value norms, Value log_sum,
                         const ops::ClassCenters& centers) const {
  if (own_.extra_loss.valid()) {
    const double share = 1.0 / static_cast<double>(build_.ranks * build_.parts);
    seeds.push_back(
        {own_.extra_loss, ops::cast(ops::constant(build_.graph, share), own_.extra_loss.dtype())});
  }
  if (!own_.term_gradient || own_.terms.empty()) return;
  const Value slopes = ops::margin_term_gradient(target, norms, log_sum, centers);
  for (std::size_t i = 0; i < own_.terms.size(); ++i) {
    const Value all =
        ops::reshape(ops::slice_rows(slopes, static_cast<std::int64_t>(i), 1), {slopes.shape()[1]});
    const Value own =
        gathered_ ? ops::slice_rows(all, build_.rank * build_.batch, build_.batch) : all;
    seeds.push_back({own_.terms[i], own});
  }
}

void HeadPass::statistics(const StepBuild& build, HeadSignals own) {
  const auto of = build.head->graph.statistics_of();
  if (of == HeadGraph::Statistics::none) return;
  if (of == HeadGraph::Statistics::global) {
    for (Value* const signal : {&own.target, &own.norms, &own.labels}) {
      *signal = ops::all_gather(*signal, build.ranks);
    }
  }
  build.head->graph.statistics(build.head->scope, own);
}

}  // namespace ftrain
