// The graph half of a head: what it makes of a step's samples by ops, before their margins.
//
// A margin's formula (ftrain/model/margin_head.h) sees one row and its cosine. A head whose margin
// depends on more says so here: statistics of the batch, state from step to step, a loss of its
// own, a gradient to the feature's norm. It hands the formula a few numbers a row, its terms.
//
// Ownership: one HeadGraph builds one step's graph and may keep Values between the calls. Threads:
// one. Order: statistics() once, where it is wanted, before the first terms(); terms() once a
// micro-batch; finish() once. Strategies call it through HeadPass (ftrain/model/head_pass.h).
#pragma once

#include <cstdint>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/model/scope.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// What is known of N samples before their margins.
struct HeadSignals {
  Value target;  // [N]: cosines with the own class; not differentiable
  Value norms;   // [N]: lengths of the features before normalisation
  Value labels;  // i64 [N]
};

struct HeadTerms {
  // [N] each, most_margin_terms at most: MarginRow::term in this order.
  std::vector<Value> terms;
  // A scalar, the mean over these N rows of what each adds to the loss; invalid: nothing.
  Value extra_loss;
  // Whether the loss reaches the features through the terms, too. The margin then has
  // target_term_slopes; terms made of the batch's statistics take none (see below).
  bool term_gradient = false;
};

class FTRAIN_API HeadGraph {
 public:
  // Whose samples statistics() is given.
  enum class Statistics {
    none,   // it is not called
    rank,   // of this rank, all micro-batches: states differ from rank to rank, rank 0's are saved
    global  // of all ranks and micro-batches: the same on every rank, however a step is cut up
  };

  virtual ~HeadGraph();

  virtual Statistics statistics_of() const { return Statistics::none; }
  // Before any row's margin. With [run] accumulate > 1 the network runs forward over all
  // micro-batches for it first: a third more work in a step, no more memory. No gradient goes
  // through what it is given. States are made by scope.statistic(), which is checkpointed;
  // trainable parameters are not possible.
  virtual void statistics(const Scope& scope, const HeadSignals& batch);
  // Of this rank's rows of one micro-batch.
  virtual HeadTerms terms(const Scope& scope, const HeadSignals& rows) = 0;
  // In the step's end. Writes states by ops::assign, with `ok` (0: a bad step, states stay).
  virtual void finish(const Scope& scope, Value ok);
};

// A step's graph half and where it builds: what strategies are given.
struct HeadStep {
  HeadGraph& graph;
  Scope scope;
};

}  // namespace ftrain
