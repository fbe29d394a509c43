// A head's graph half in one micro-batch, for strategies; without one it does nothing.
//
//   const HeadPass head(build, {own_targets, own_norms, labels}, gathered);
//   centers.terms = head.terms();               // then the class-center ops
//   loss = head.add_loss(loss);                 // the micro-batch's share of the step's loss
//   head.add_seeds(seeds, target, norms, log_sum, centers);  // in the backward phase
#pragma once

#include <vector>

#include "ftrain/model/head_graph.h"
#include "ftrain/model/parallelism.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

class FTRAIN_API HeadPass {
 public:
  // `own`: of this rank's samples. `gathered`: the class-center ops work on the samples of all
  // ranks, rank by rank. ConfigError where the margin and the graph half do not fit together.
  HeadPass(const StepBuild& build, const HeadSignals& own, bool gathered);

  // [n, rows of the class-center ops], or invalid.
  Value terms() const { return terms_; }
  Value add_loss(Value loss) const;
  // The operands are those of margin_loss; `centers` has the terms.
  void add_seeds(std::vector<Seed>& seeds, Value target, Value norms, Value log_sum,
                 const ops::ClassCenters& centers) const;

  // Statistics before the first micro-batch, of this rank's samples in all of them.
  static void statistics(const StepBuild& build, HeadSignals own);

 private:
  const StepBuild& build_;
  bool gathered_;
  HeadTerms own_;
  Value terms_;
};

}  // namespace ftrain
