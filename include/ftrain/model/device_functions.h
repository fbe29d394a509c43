// What a head and an optimizer do on a CUDA device: tables of host functions that enqueue work.
//
// Margin::cuda and Update::cuda point to such a table, or are nullptr where the plugin was built
// without nvcc. The tables are made from the same functors as the host's functions, by drivers that
// nvcc compiles into the head's or optimizer's plugin, so that a device's kernels know no formula.
//
// Every function enqueues on `stream` (a cudaStream_t) and returns at once: it neither allocates
// nor waits nor reads device memory, so that a whole step can be captured. Tensors are f32 and lie
// in device memory, row-major; the structures here and the arrays that the comments call the host's
// are read before the function returns. Functions throw DeviceError when a launch fails. Results
// are the same to the bit from run to run: no sums by atomics.
//
// Nothing of CUDA is included, so any host code may read this.
#pragma once

#include <cstdint>

#include "ftrain/base/dtype.h"
#include "ftrain/model/margin_head.h"

namespace ftrain {

// ---- margins (Margin::cuda is a const DeviceMargin*)

// A tile of the walk over class centers: `rows` of them by `batch` samples, samples side by side.
struct DeviceMarginTile {
  std::int64_t rows = 0, batch = 0;
  std::int64_t first = 0;  // the walked position of the tile's first row
  // [rows, batch]: products of features with the raw class centers; where results go. With `kept`
  // nothing is read of it.
  float* cosines = nullptr;
  const float* kept = nullptr;  // [rows, batch]: cosines, where they need not be made; or nullptr
  const float* inverse = nullptr;  // [rows]: 1 / |w|, or 1 where nothing is normalised
  // [rows]: a sample of classes; a row below 0 is a slot not in use and takes no part. nullptr: all
  // rows take part.
  const std::int32_t* sampled = nullptr;
  const std::int32_t* own = nullptr;          // [batch]: walked position of the own class, or -1
  const MarginRow<float>* samples = nullptr;  // [batch]
};

struct DeviceMargin {
  // logits[b] = the logit of sample b's own class and its slope.
  void (*target)(const void* functor, const MarginRow<float>* samples, std::int64_t batch,
                 Dual<float>* logits, void* stream) = nullptr;
  // Continues the (maximum, sum of exponentials) of every sample's logits over the tile's rows.
  // `running` is [slices, batch, 2], (-infinity, 0) before the first tile: rows are dealt out to
  // slices, for parallelism alone, which the caller combines in the end. `keep`: cosines are
  // written back where the products stood (0 in slots not in use); otherwise the tile is left as it
  // is.
  void (*forward)(const void* functor, const DeviceMarginTile& tile, bool keep, std::int64_t slices,
                  float* running, void* stream) = nullptr;
  // With p = exp(logit - log_sum[b]) and dcos = (p - [own]) * slope * gradient_scale:
  // tile.cosines become dcos * inverse, and along[row] = sum over samples of dcos * cosine; both
  // are 0 in slots not in use.
  void (*backward)(const void* functor, const DeviceMarginTile& tile, const float* log_sum,
                   float gradient_scale, float* along, void* stream) = nullptr;
  // gradient[i][b] = (exp(logit - log_sum[b]) - 1) * d logit / d term i * gradient_scale, of the
  // own class's logit, for the first `terms` of them. nullptr: the head takes none.
  void (*target_term_gradient)(const void* functor, const MarginRow<float>* samples,
                               std::int64_t batch, const float* log_sum, float gradient_scale,
                               std::int64_t terms, float* gradient, void* stream) = nullptr;
};

// ---- optimizers (Update::cuda is a const DeviceUpdate*)

// What UpdateScalars are on the host; pointers are to device memory.
struct DeviceUpdateScalars {
  const float* rate = nullptr;         // times rate_factor
  const float* ok = nullptr;           // 0: nothing is changed; nullptr: always go on
  const float* coefficient = nullptr;  // on the gradient first; nullptr: 1
  const std::int64_t* step = nullptr;  // the number of steps before this one; nullptr: 0
  double rate_factor = 1;
  double decay = 0;
};

// Rows of a tensor [.., width] and of its slots. Row i of `gradient` belongs to the tensor's row
//   rows[i]      where rows are given; below 0: left out
//   first + i    otherwise.
// No row comes twice. `packed`: the tensor and its slots lie one row behind the other in the order
// of the gradient, and row i is the i-th; whose it is in the whole tensor is as above.
struct DeviceRows {
  std::int64_t count = 0, width = 0;
  std::int64_t first = 0;
  const std::int32_t* rows = nullptr;
  // [count, width]; nullptr: 0 everywhere (momentum and decay alone)
  const float* gradient = nullptr;
  // Parameter and slots as they are stored: f32, or bf16 rounded stochastically by Philox(seed,
  // step, global row, column) as RowUpdate (ftrain/ops/class_center.h) says.
  DType dtype = DType::f32;
  std::uint64_t seed = 0;
  std::int64_t first_class = 0;  // the global row of the tensor's row 0
  bool packed = false;
  // How often each row of the whole tensor was updated: goes up, and is the update's number in
  // place of the step's. nullptr: rows are not counted.
  float* row_steps = nullptr;
};

// A tensor with its slots and its gradient; `slots` is the host's array of tensors like
// `parameter`.
struct DeviceTensor {
  float* parameter = nullptr;
  float* const* slots = nullptr;
  const float* gradient = nullptr;
  std::int64_t count = 0;  // elements
  // The parameter rounded to 16 bits, for convolutions to read: written where the parameter is.
  // nullptr: none.
  void* copy = nullptr;
  DType copy_dtype = DType::bf16;  // or f16
};

struct DeviceUpdate {
  // All elements of some tensors (the host's array), in as few launches as they fit.
  void (*dense)(const void* functor, const DeviceTensor* tensors, std::int64_t tensor_count,
                const DeviceUpdateScalars& scalars, void* stream) = nullptr;
  // Some rows; `parameter` and slots point to the tensors' first row.
  void (*rows)(const void* functor, void* parameter, void* const* slots, int slot_count,
               const DeviceRows& rows, const DeviceUpdateScalars& scalars, void* stream) = nullptr;
};

}  // namespace ftrain
