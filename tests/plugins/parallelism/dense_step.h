// The class-center step written out densely in double: normalise, multiply, margin, softmax, cross
// entropy, gradients, SGD. Shares no code with the program but Philox.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "ftrain/base/philox.h"

namespace ftrain::dense {

using Matrix = std::vector<double>;  // row-major

// A head by its formula: at the target cos(m1 t + m2) - m3, elsewhere the cosine, times scale.
struct Head {
  bool normalized = true, straight_through = false;
  double scale = 64, m1 = 1, m2 = 0, m3 = 0;
  double filter = 2;
};

struct Step {
  std::int64_t batch = 0, width = 0, classes = 0;
  Head head;
  double rate = 0.1, momentum = 0.9, decay = 0;
  bool all_rows = false;           // unsampled rows move by momentum and decay
  std::vector<char> sampled = {};  // by class; empty: all

  bool in(std::int64_t c) const {
    return sampled.empty() || sampled[static_cast<std::size_t>(c)] != 0;
  }
};

struct Result {
  double loss = 0;
  Matrix dx;  // with respect to the embedding, before its normalisation
};

// Which classes a step samples: those of the labels, and those whose own draw falls under the rate.
inline std::vector<char> sample(std::int64_t classes, double rate, std::uint64_t seed,
                                std::int64_t step, const std::vector<std::int64_t>& labels) {
  std::vector<char> chosen(static_cast<std::size_t>(classes), 0);
  const std::uint64_t key = mix64(seed, name_hash("sample_classes"));
  for (std::int64_t c = 0; c < classes; ++c) {
    const auto global = static_cast<std::uint64_t>(c);
    const Philox draw = Philox::at(key, static_cast<std::uint64_t>(step), global / 4);
    chosen[global] = draw.uniform(static_cast<int>(global % 4)) < static_cast<float>(rate);
  }
  for (const std::int64_t label : labels) chosen[static_cast<std::size_t>(label)] = 1;
  return chosen;
}

inline double length(const double* row, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += row[i] * row[i];
  return std::max(std::sqrt(sum), 1e-12);
}

// Rows over their lengths (or as they are).
inline Matrix unit_rows(const Matrix& m, std::int64_t width, bool normalized) {
  Matrix out = m;
  for (std::size_t r = 0; normalized && r < m.size(); r += static_cast<std::size_t>(width)) {
    const double l = length(&m[r], width);
    for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d) out[r + d] /= l;
  }
  return out;
}

// Back through row / |row|, in place.
inline void through_rows(Matrix& gradient, const Matrix& m, std::int64_t width, bool normalized) {
  for (std::size_t r = 0; normalized && r < m.size(); r += static_cast<std::size_t>(width)) {
    const double l = length(&m[r], width);
    double along = 0;
    for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d) {
      along += gradient[r + d] * m[r + d] / l;
    }
    for (std::size_t d = 0; d < static_cast<std::size_t>(width); ++d) {
      gradient[r + d] = (gradient[r + d] - along * m[r + d] / l) / l;
    }
  }
}

inline void logit(const Head& head, double cosine, bool own, double& value, double& slope) {
  if (!head.normalized) {
    value = head.scale * cosine;
    slope = head.scale;
    return;
  }
  const double c = std::clamp(cosine, -1.0, 1.0);
  const double inside = c == cosine ? 1 : 0;
  if (own) {
    const double theta = std::acos(c), moved = head.m1 * theta + head.m2;
    const bool shift_only = head.m1 == 1 && head.m2 == 0;
    value = head.scale * (std::cos(moved) - head.m3);
    slope = head.scale * inside;
    if (!head.straight_through && !shift_only) {
      slope *= head.m1 * std::sin(moved) / std::sin(theta);
    }
  } else if (c > head.filter) {
    value = slope = 0;
  } else {
    value = head.scale * c;
    slope = head.scale * inside;
  }
}

// Updates weight in place: update(class, its gradient, its row) for every class that moves.
template <class Update>
Result run_with(const Step& s, const Matrix& x, const std::vector<std::int64_t>& labels,
                Matrix& weight, const Update& update) {
  const auto n = static_cast<std::size_t>(s.batch), w = static_cast<std::size_t>(s.width),
             classes = static_cast<std::size_t>(s.classes);
  const Matrix xu = unit_rows(x, s.width, s.head.normalized);
  const Matrix wu = unit_rows(weight, s.width, s.head.normalized);
  Matrix value(n * classes), slope(n * classes);
  Result result{0, Matrix(n * w, 0)};
  Matrix dw(classes * w, 0);
  for (std::size_t b = 0; b < n; ++b) {
    const auto own = static_cast<std::size_t>(labels[b]);
    double largest = -1e300, sum = 0;
    for (std::size_t c = 0; c < classes; ++c) {
      if (!s.in(static_cast<std::int64_t>(c))) continue;
      double cosine = 0;
      for (std::size_t d = 0; d < w; ++d) cosine += xu[b * w + d] * wu[c * w + d];
      logit(s.head, cosine, c == own, value[b * classes + c], slope[b * classes + c]);
      largest = std::max(largest, value[b * classes + c]);
    }
    for (std::size_t c = 0; c < classes; ++c) {
      if (s.in(static_cast<std::int64_t>(c))) sum += std::exp(value[b * classes + c] - largest);
    }
    result.loss += (largest + std::log(sum) - value[b * classes + own]) / static_cast<double>(n);
    for (std::size_t c = 0; c < classes; ++c) {
      if (!s.in(static_cast<std::int64_t>(c))) continue;
      const double p = std::exp(value[b * classes + c] - largest) / sum;
      const double g = (p - (c == own ? 1 : 0)) * slope[b * classes + c] / static_cast<double>(n);
      for (std::size_t d = 0; d < w; ++d) {
        result.dx[b * w + d] += g * wu[c * w + d];
        dw[c * w + d] += g * xu[b * w + d];
      }
    }
  }
  through_rows(result.dx, x, s.width, s.head.normalized);
  through_rows(dw, weight, s.width, s.head.normalized);
  for (std::size_t c = 0; c < classes; ++c) {
    if (!s.in(static_cast<std::int64_t>(c)) && !s.all_rows) continue;
    update(c, &dw[c * w], &weight[c * w]);
  }
  return result;
}

// By SGD: updates weight and velocity in place.
inline Result run(const Step& s, const Matrix& x, const std::vector<std::int64_t>& labels,
                  Matrix& weight, Matrix& velocity) {
  const auto w = static_cast<std::size_t>(s.width);
  return run_with(s, x, labels, weight, [&](std::size_t c, const double* gradient, double* row) {
    for (std::size_t d = 0; d < w; ++d) {
      double& v = velocity[c * w + d];
      v = s.momentum * v + gradient[d] + s.decay * row[d];
      row[d] -= s.rate * v;
    }
  });
}

}  // namespace ftrain::dense
