// Backbones: images to embeddings.
#pragma once

#include <cstdint>

#include "ftrain/config/keys.h"
#include "ftrain/graph/graph.h"
#include "ftrain/model/scope.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// A backbone knows layers and nothing else: no device, no layout, no precision.
class FTRAIN_API Backbone : public Configurable {
 public:
  static constexpr const char* kind = "backbone";
  ~Backbone() override;

  // image [N, 3, H, W] in about [-1, 1] -> embedding [N, width]. ShapeError when H or W is too
  // small.
  virtual Value forward(const Scope& scope, Value image) const = 0;
};

}  // namespace ftrain
