// Optimizers: what a job's [optimizer] names.
//
// An optimizer hands out an Update: a payload with one function over a run of elements that serves
// dense tensors and rows of class centers alike. Rate, clipping, the step's number and the finite
// check are device scalars, so they stand in UpdateScalars, not in the functor.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/config/keys.h"
#include "ftrain/graph/attributes.h"
#include "ftrain/model/update_scalars.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// Updates `count` elements of a tensor and its slots in place.
template <class T>
using UpdateFunction = void (*)(const void* functor, T* parameter, T* const* slots,
                                const T* gradient, std::int64_t count, const UpdateScalars&);

class FTRAIN_API Update : public Payload {
 public:
  const void* functor = nullptr;
  UpdateFunction<float> f32 = nullptr;
  UpdateFunction<double> f64 = nullptr;
  // A DeviceUpdate (ftrain/model/device_functions.h); nullptr: the optimizer was built without
  // nvcc.
  const void* cuda = nullptr;

  template <class T>
  UpdateFunction<T> function() const {
    if constexpr (sizeof(T) == sizeof(float))
      return f32;
    else
      return f64;
  }
};

// Which tensors get which factors.
struct TensorPolicy {
  double rate_factor = 1, decay = 0;
};

class FTRAIN_API Optimizer : public Configurable {
 public:
  static constexpr const char* kind = "optimizer";
  ~Optimizer() override;

  // Binds `rate`, `weight_decay`, `clip`, `no_decay` and the class centers' factors; optimizers add
  // their own keys.
  void configure(Keys& keys) override;
  // Names of the slots that each parameter has: {"momentum"}.
  virtual std::vector<std::string> slots() const = 0;
  virtual std::shared_ptr<const Update> update() const = 0;
  // Whether UpdateScalars::step of a class center is the number of that row's own updates, which a
  // state counts ("centers.weight.step"), instead of the step's. They differ where rows are
  // sampled.
  virtual bool counts_rows() const { return false; }

  // The policy of a backbone's parameter, and of the class centers.
  TensorPolicy policy(const std::string& parameter, std::size_t rank) const;
  TensorPolicy center_policy() const;

  double rate = 0.1;
  double weight_decay = 5e-4;
  std::optional<double> clip;         // global norm of the backbone's gradient; absent: none
  std::vector<std::string> no_decay;  // "vectors" (rank 1), or parts of parameter names
  double center_rate_factor = 1, center_decay_factor = 1;
};

}  // namespace ftrain
