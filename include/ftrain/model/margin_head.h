// Margin heads: what a job's [head] names.
//
// A head is configured once and hands out a Margin: an immutable payload that the class-center ops
// carry. Formulas live in one small functor a head (heads/*.h), compiled for host and device; a
// Margin holds the host's functions, made from the functor by ftrain/head/margin_cpu.h. What a
// formula cannot say of one row - batch statistics, state from step to step, a loss of its own, a
// gradient to the norm - a head emits as ops, in its graph half (ftrain/model/head_graph.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ftrain/config/keys.h"
#include "ftrain/graph/attributes.h"
#include "ftrain/ops/class_center.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// A function's value and its derivative.
template <class T>
struct Dual {
  T value, slope;
};

class HeadGraph;

// What a margin knows of a row beside the cosine in hand.
template <class T>
struct MarginRow {
  T target;                        // cosine of the row with its own class
  T norm;                          // length of its feature before normalisation
  T term[most_margin_terms] = {};  // what the head's graph half made of the row, in its order
};

// A tile of cosines: `rows` samples by `columns` classes, `cosines[r * stride + c]`.
template <class T>
struct MarginTile {
  std::int64_t rows = 0, columns = 0, stride = 0;
  T* cosines = nullptr;
  T* slopes = nullptr;  // nullptr: only the logits are wanted
  const MarginRow<T>* row = nullptr;
};

// A margin for element type T (float, double). The scale is included, and so is the job's choice of
// gradient. The device patches each row's own column by `target`.
template <class T>
struct MarginFunctions {
  // The logit of a row's own class and d logit / d cosine.
  Dual<T> (*target)(const void* functor, const MarginRow<T>& row) = nullptr;
  // Cosines -> logits in place and, where wanted, d logit / d cosine, as if no column were a row's
  // own. nullptr: logit = scale * clamped cosine, which a device does by itself.
  void (*others)(const void* functor, const MarginTile<T>& tile) = nullptr;
  // d (logit of a row's own class) / d term, for all most_margin_terms of them. nullptr: the head
  // takes no gradient through its terms.
  void (*target_term_slopes)(const void* functor, const MarginRow<T>& row, T* slopes) = nullptr;
};

class FTRAIN_API Margin : public Payload {
 public:
  // Features and class centers are normalised and cosines clamped to [-1, 1]; otherwise the
  // products are raw (plain softmax).
  bool normalized = true;
  double scale = 1;
  const void* functor = nullptr;  // first argument of the functions
  MarginFunctions<float> f32;
  MarginFunctions<double> f64;
  // A DeviceMargin (ftrain/model/device_functions.h); nullptr: the head was built without nvcc.
  const void* cuda = nullptr;

  template <class T>
  const MarginFunctions<T>& functions() const {
    if constexpr (sizeof(T) == sizeof(float))
      return f32;
    else
      return f64;
  }
};

class FTRAIN_API MarginHead : public Configurable {
 public:
  static constexpr const char* kind = "head";
  ~MarginHead() override;

  // Binds `scale`, `gradient` and `interclass_filtering_threshold`; heads add their own keys.
  void configure(Keys& keys) override;
  virtual std::shared_ptr<const Margin> margin() const = 0;
  // For the graph of one step. nullptr: a row's logits depend on its cosines alone.
  virtual std::unique_ptr<HeadGraph> graph_half() const;

  double scale = 64;
  std::string gradient = "exact";
  std::optional<double> filter;
};

}  // namespace ftrain
