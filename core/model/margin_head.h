// Margin heads: what a job's [head] names.
//
// A head is configured once and hands out a Margin: an immutable payload that the class-center ops
// carry. Formulas live in one small functor a head (heads/*.h), compiled for host and device; a
// Margin holds the host's tile functions, made from the functor by heads/margin_cpu.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "core/config/keys.h"
#include "core/graph/attributes.h"
#include "core/plugin/api.h"

namespace ftrain {

// What margins in the literature need to know of a row beside the cosine in hand.
template <class T>
struct MarginRow {
  T target;          // cosine of the row with its own class
  T norm;            // length of its feature before normalisation
  T norm_mean;       // mean and deviation of the lengths over the batch
  T norm_deviation;
};

// A tile of logits: `rows` samples by `columns` classes, `cosines[row * stride + column]`.
// target_column[row] is the column of the row's own class, or -1 when it is not in this tile.
template <class T>
struct MarginTile {
  std::int64_t rows = 0, columns = 0, stride = 0;
  T* cosines = nullptr;
  const std::int32_t* target_column = nullptr;
  const MarginRow<T>* row = nullptr;
};

// The two tile functions and the target's own, for element type T (float, double).
template <class T>
struct MarginFunctions {
  // Cosines -> logits (scale included); folds them into each row's online (max, sum):
  // running[2 * row], running[2 * row + 1]; start with (-inf, 0). The tile may be overwritten.
  void (*reduce)(const void* margin, const MarginTile<T>& tile, T* running) = nullptr;
  // Cosines -> d loss / d cosine, in place: (softmax - onehot) * slope * gradient_scale, with softmax
  // = exp(logit - log_sum[row]).
  void (*slope)(const void* margin, const MarginTile<T>& tile, const T* log_sum, T gradient_scale) =
      nullptr;
  // The logit of a row's own class.
  T (*target)(const void* margin, const MarginRow<T>& row) = nullptr;
};

class FTRAIN_API Margin : public Payload {
 public:
  // Features and class centers are normalised; otherwise the products are raw (plain softmax).
  bool normalized = true;
  const void* functor = nullptr;  // the configured functor, first argument of the functions
  MarginFunctions<float> f32;
  MarginFunctions<double> f64;

  template <class T>
  const MarginFunctions<T>& functions() const {
    if constexpr (sizeof(T) == sizeof(float)) return f32;
    else return f64;
  }
};

class FTRAIN_API MarginHead : public Configurable {
 public:
  static constexpr const char* kind = "head";
  ~MarginHead() override;

  // Binds `scale`, `gradient` and `interclass_filtering_threshold`; heads add their own keys.
  void configure(Keys& keys) override;
  virtual std::shared_ptr<const Margin> margin() const = 0;

  double scale = 64;
  std::string gradient = "exact";
  std::optional<double> filter;
};

}  // namespace ftrain
