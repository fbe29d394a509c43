#include "ftrain/base/shape.h"

namespace ftrain {

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (std::int64_t extent : extents_) product *= extent;
  return product;
}

std::string Shape::text() const {
  std::string text = "[";
  for (std::size_t axis = 0; axis < rank(); ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(extents_[axis]);
  }
  return text + "]";
}

std::string TensorType::text() const {
  std::string text = std::string(name_of(dtype)) + shape.text();
  if (!layout.empty()) text += ":" + layout;
  return text;
}

}  // namespace ftrain
