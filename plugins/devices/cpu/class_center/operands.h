// What the class-center kernels share: what a walk must know.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/model/margin_head.h"
#include "ftrain/ops/class_center.h"

namespace ftrain::cpu {

namespace forward_input = center_forward;
namespace backward_input = center_pass;
// Of class_center_backward's outputs; class_center_update has the features' gradient alone.
namespace backward_output {
enum : std::size_t { weight, features };
}

// The walk over class centers in the order of `walked` positions: all rows, or the sampled ones.
struct Walk {
  std::int64_t batch = 0, width = 0;
  std::int64_t walked = 0;  // positions, unused slots of a sample included
  std::int64_t first_class = 0, classes = 0;
  std::int64_t count_of_terms = 0;
  bool bf16 = false;  // what class centers and slots are stored in; otherwise as features
  const Margin* margin = nullptr;
  double gradient_scale = 1;

  static Walk of(const Node& node, std::size_t weight, std::size_t rows, std::size_t terms) {
    Walk walk;
    walk.batch = node.input(0).shape[0];
    walk.width = node.input(0).shape[1];
    walk.classes = node.input(weight).shape[0];
    walk.bf16 = node.input(weight).dtype == DType::bf16;
    walk.walked = node.inputs[rows].valid() ? node.input(rows).shape[0] : walk.classes;
    walk.count_of_terms = terms_of(node, terms);
    walk.first_class = node.attributes.integer("first_class");
    walk.margin = &node.attributes.payload<Margin>("margin");
    walk.gradient_scale = node.attributes.number("gradient_scale");
    return walk;
  }

  // Positions in use: a sample's unused slots stand at its end.
  std::int64_t used(const std::int32_t* rows) const {
    if (rows == nullptr) return walked;
    return std::partition_point(rows, rows + walked, [](std::int32_t row) { return row >= 0; }) -
           rows;
  }

  // The walked position of each sample's own class, or -1 when it is not among them.
  void find_targets(const std::int64_t* labels, const std::int32_t* rows, std::int64_t used,
                    std::vector<std::int64_t>& positions) const {
    positions.resize(static_cast<std::size_t>(batch));
    for (std::int64_t b = 0; b < batch; ++b) {
      std::int64_t position = labels[b] - first_class;
      if (position < 0 || position >= classes) {
        position = -1;
      } else if (rows != nullptr) {
        const auto* found = std::lower_bound(rows, rows + used, position);
        position = found != rows + used && *found == position ? found - rows : -1;
      }
      positions[static_cast<std::size_t>(b)] = position;
    }
  }

  // `terms`: [count_of_terms, batch], or nothing.
  template <class T>
  void make_rows(const T* target, const T* norms, const T* terms,
                 std::vector<MarginRow<T>>& rows) const {
    rows.resize(static_cast<std::size_t>(batch));
    for (std::int64_t b = 0; b < batch; ++b) {
      MarginRow<T>& row = rows[static_cast<std::size_t>(b)];
      row.target = target[b];
      row.norm = norms[b];
      for (std::int64_t i = 0; i < count_of_terms; ++i) row.term[i] = terms[i * batch + b];
    }
  }

  static std::int64_t terms_of(const Node& node, std::size_t terms) {
    return node.inputs[terms].valid() ? node.input(terms).shape[0] : 0;
  }
};

}  // namespace ftrain::cpu
