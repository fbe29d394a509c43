// Layers: parameters plus ops, named as arcface_torch names them.
#pragma once

#include <cstdint>
#include <string>

#include "ftrain/model/scope.h"
#include "ftrain/ops.h"

namespace ftrain::layers {

// Adds `name`.weight [out, in/groups, kernel, kernel]. Each computes what the op of that name does.
FTRAIN_API Value conv2d(const Scope& scope, const std::string& name, Value x, std::int64_t out,
                        std::int64_t kernel, const ops::Conv2d& options, Initializer weight);

struct BatchNormOptions {
  double eps = 1e-5, momentum = 0.1;
  bool frozen_gamma = false;  // gamma is 1, untrained and without decay
};
// Adds `name`.weight, .bias, .running_mean, .running_var. In training: batch statistics (as the
// build's grouping says) and an update of the running ones at the end of the step; else the
// running.
FTRAIN_API Value batch_norm(const Scope& scope, const std::string& name, Value x,
                            const BatchNormOptions& options = {});

// Adds `name`.weight [C], initially 0.25.
FTRAIN_API Value prelu(const Scope& scope, const std::string& name, Value x);

// x [N, in]. Adds `name`.weight [out, in] and, with bias, `name`.bias [out].
FTRAIN_API Value linear(const Scope& scope, const std::string& name, Value x, std::int64_t out,
                        bool bias, Initializer weight, Initializer bias_initializer = {});

// The identity in evaluation. Each call site draws its own stream by its name.
FTRAIN_API Value dropout(const Scope& scope, const std::string& name, Value x, double p);

}  // namespace ftrain::layers
