// Shapes and tensor types: what the graph knows of a value before anything runs.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "ftrain/base/dtype.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// Row-major extents, outermost first. A scalar has no extents. Images are N, C, H, W.
class FTRAIN_API Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) : extents_(extents) {}
  explicit Shape(std::vector<std::int64_t> extents) : extents_(std::move(extents)) {}

  std::size_t rank() const { return extents_.size(); }
  std::int64_t operator[](std::size_t axis) const { return extents_[axis]; }
  std::int64_t& operator[](std::size_t axis) { return extents_[axis]; }
  const std::vector<std::int64_t>& extents() const { return extents_; }
  std::int64_t elements() const;
  std::string text() const;  // "[64, 3, 112, 112]"
  bool operator==(const Shape&) const = default;

 private:
  std::vector<std::int64_t> extents_;
};

struct FTRAIN_API TensorType {
  DType dtype = DType::f32;
  Shape shape;
  // The physical order of the elements: empty is row-major, anything else is a device's own word,
  // which core compares and prints but never interprets. A layout never changes the byte count.
  std::string layout = {};

  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
  std::string text() const;  // "f32[64, 3, 112, 112]" or "f32[64, 64, 56, 56]:aBcd16b"
  bool operator==(const TensorType&) const = default;
};

}  // namespace ftrain
