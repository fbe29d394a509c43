// The class-center step: products with class centers, margin, softmax and update, tile by tile.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {

// Numbers that a head's graph half gives a margin for each row, at most.
inline constexpr int most_margin_terms = 4;

// Where the operands of the class-center ops stand. The weight and its slots may be bf16 where
// features are f32; everything made of them is f32. `rows` may be invalid: all rows of the weight.
//
//   target_cosine          features, labels, weight -> cosine
//   class_center_forward   center_forward -> stats, inverse norms [, cosines]
//   margin_loss            center_loss -> loss, log_sum
//   margin_term_gradient   term_gradient -> dterms
//   class_center_backward  center_pass up to `terms` -> dweight, dfeatures
//   class_center_update    center_pass -> dfeatures; row_steps may be invalid
//   sample_classes         labels, step -> rows
namespace center_forward {
inline constexpr std::size_t features = 0, norms = 1, labels = 2, weight = 3, target = 4, rows = 5,
                             terms = 6;
}
namespace center_loss {
inline constexpr std::size_t stats = 0, norms = 1, target = 2, terms = 3;
}
namespace term_gradient {
inline constexpr std::size_t target = 0, norms = 1, log_sum = 2, terms = 3;
}
namespace center_pass {
inline constexpr std::size_t features = 0, norms = 1, labels = 2, weight = 3, target = 4,
                             log_sum = 5, inverse_norms = 6, rows = 7, cosines = 8, earlier = 9,
                             terms = 10, rate = 11, ok = 12, step = 13, row_steps = 14,
                             first_slot = 15;
}

}  // namespace ftrain

namespace ftrain::ops {

struct ClassCenters {
  std::shared_ptr<const Payload> margin;  // a Margin, see ftrain/model/margin_head.h
  std::int64_t first_class = 0;           // the global number of weight's row 0
  double gradient_scale = 1;              // 1 / global batch
  // The first walk keeps its cosines for the second, which otherwise makes them again.
  bool keep_cosines = false;
  // What the head's graph half made of each row, MarginRow::term: [n, B], n <= most_margin_terms.
  // Invalid: nothing. No op but margin_term_gradient makes a gradient of it.
  Value terms = {};
};
// Cosines (or raw products) of each row with its own class where `weight` holds it, else 0:
// features [B, D], labels i64 [B], weight [C, D] -> [B]. Summed over ranks it is every row's.
FTRAIN_API Value target_cosine(Value features, Value labels, Value weight, const ClassCenters&);
// One walk over the tiles: -> stats [B, 2] = online (max, sum exp) of the logits of these classes,
// inverse norms [C] (or [capacity] with `rows`). norms [B]: the features' lengths.
// rows: i32 [capacity], the sampled rows of weight in ascending order, -1 in unused slots at the
// end; invalid: all rows.
// cosines [C or capacity, B] (raw products where the margin wants them), only with keep_cosines.
struct ClassStats {
  Value stats, inverse_norms, cosines;
};
FTRAIN_API ClassStats class_center_forward(Value features, Value norms, Value labels, Value weight,
                                           Value target, Value rows, const ClassCenters&);
// stats of all ranks [ranks, B, 2], target cosines [B] -> loss (scalar: the mean over B) and the
// log of each row's softmax denominator [B].
struct MarginLoss {
  Value loss, log_sum;
};
FTRAIN_API MarginLoss margin_loss(Value stats, Value norms, Value target, const ClassCenters&);
// The gradient of the loss by the terms, [n, B]: through the target's logit.
FTRAIN_API Value margin_term_gradient(Value target, Value norms, Value log_sum,
                                      const ClassCenters&);
// The second walk: gradient of the features (this rank's classes' share) [B, D] and of the weight,
// dense: [C, D], or [capacity, D] of the walked rows with `rows` (0 in unused slots). `stats` is
// what the first walk gave, with its cosines or without. `earlier`: a gradient of the weight, as
// made here of earlier samples, that this one's is added to.
struct ClassGradients {
  Value features, weight;
};
FTRAIN_API ClassGradients class_center_backward(Value features, Value norms, Value labels,
                                                Value weight, Value target, Value log_sum,
                                                const ClassStats& stats, Value rows,
                                                const ClassCenters&, Value earlier = {});
// The second walk with the optimizer's update on each tile, in place; no gradient of the weight
// ever exists. Writes weight and slots. `update`: an Update, see ftrain/model/optimizer.h.
// `all_rows`: rows that were not sampled are updated with gradient 0 (dense momentum and decay).
struct RowUpdate {
  std::shared_ptr<const Payload> update;
  double rate_factor = 1, decay = 0;
  bool all_rows = false;
  // A gradient of the weight from earlier samples of the step that is added to this one's before
  // the update: [C, D] (or [capacity, D] with `rows`), as class_center_backward gives it.
  Value earlier = {};
  // i64 scalar, the number of steps before this one, skipped ones too; invalid: 0. Where the weight
  // is bf16 it must be there: results are rounded to it stochastically, by Philox(seed, step, row,
  // column) of the global row, so that small updates are not lost.
  Value step = {};
  std::uint64_t seed = 0;
  // f32 [C], a state: how often each row was updated. The update's number is then the row's own,
  // which goes up; a step with ok = 0 counts nothing. Invalid: the number is the step's. (Exact up
  // to 2^24 updates of a row; an optimizer's corrections have long become 1 by then.)
  Value row_steps = {};
};
FTRAIN_API Value class_center_update(Value features, Value norms, Value labels, Value weight,
                                     Value target, Value log_sum, const ClassStats& stats,
                                     Value rows, std::vector<Value> slots, Value rate, Value ok,
                                     const ClassCenters&, const RowUpdate&);
// Partial FC: local rows of weight chosen in this step: those of the batch's labels, and those
// whose Philox(seed, step, global class) falls under `sample_rate`. -> i32 [capacity], ascending,
// then -1.
struct SampleClasses {
  std::int64_t first_class = 0, local_classes = 0, capacity = 0;
  double sample_rate = 1;
  std::uint64_t seed = 0;
};
FTRAIN_API Value sample_classes(Value labels, Value step, const SampleClasses&);

// What the functions above emit: an op is told from others by the address of its definition.
namespace def {
FTRAIN_API extern const OpDef target_cosine, class_center_forward, margin_loss,
    margin_term_gradient, class_center_backward, class_center_update, sample_classes;
}  // namespace def

}  // namespace ftrain::ops
