// The graphs of a job: one whole training step, and the forward pass of an evaluation.
#pragma once

#include <cstdint>
#include <memory>

#include "core/train/assembly.h"
#include "ftrain/graph/graph.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// Inputs: image u8 [B, size, size, 3], label i64 [B], rate f32, step i64, where B is [dataset]
// batch times [run] accumulate. With accumulate = k the graph has k parts one behind the other,
// each with its own forward and backward walk over `batch` samples; part j has rows j * batch and
// on.
// With several ranks there is one input more, notes f32 [2]: what a rank tells the others with the
// step. It is summed over them in the first collective of the gradients and fetched as notes.
// Fetches: loss, gradient_norm (backbone, before clipping), ok (1: the step was finite and took
// effect), and what the step's parts report (ftrain/model/report_scalar.h), among it loss_scale
// where the loss is scaled. A step whose loss is not finite changes no parameter, slot or
// statistic. One whose loss is finite and whose backbone gradient is not changes class centers
// alone: their update precedes the backward walk, and a finite loss bounds it. Where the device
// wants the loss scaled (Device::loss_scaling), the seeds of the backward walk to the backbone are
// multiplied with the state "loss_scale"; gradient_norm and the updates are free of it. A step that
// is not ok halves the scale, many good ones in a row double it. The class centers' own step is not
// scaled: it is made in f32. ShapeError when the backbone's output is no [batch, width];
// ConfigError when batch-norm statistics cannot be what the job says.
FTRAIN_API std::unique_ptr<Graph> training_graph(const Assembly& assembly, std::int64_t classes,
                                                 int rank, int ranks);

// Input: image u8 [batch, size, size, 3]. Fetch: embedding f32 [batch, width]. Running statistics,
// no dropout.
FTRAIN_API std::unique_ptr<Graph> evaluation_graph(const Assembly& assembly, std::int64_t batch);
// The width of its embedding.
FTRAIN_API std::int64_t embedding_width(const Graph& evaluation);

}  // namespace ftrain
