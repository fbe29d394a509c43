#include "datasets/portraits/canvas.h"

#include <numbers>

namespace ftrain::portraits {
namespace {

Point between(Point a, Point b, Point c, Point d, float t) {
  const Point m = (c - a) * 0.5f, n = (d - b) * 0.5f;
  const float t2 = t * t, t3 = t2 * t;
  return b * (2 * t3 - 3 * t2 + 1) + m * (t3 - 2 * t2 + t) + c * (3 * t2 - 2 * t3) + n * (t3 - t2);
}

}  // namespace

Contour smooth_closed(const Contour& points, int steps) {
  const std::size_t n = points.size();
  Contour out;
  out.reserve(n * steps);
  for (std::size_t i = 0; i < n; ++i) {
    for (int s = 0; s < steps; ++s) {
      out.push_back(between(points[(i + n - 1) % n], points[i], points[(i + 1) % n],
                            points[(i + 2) % n], static_cast<float>(s) / steps));
    }
  }
  return out;
}

Contour smooth_open(const Contour& points, int steps) {
  const std::size_t n = points.size();
  Contour out;
  out.reserve((n - 1) * steps + 1);
  for (std::size_t i = 0; i + 1 < n; ++i) {
    for (int s = 0; s < steps; ++s) {
      out.push_back(between(points[i == 0 ? 0 : i - 1], points[i], points[i + 1],
                            points[std::min(i + 2, n - 1)], static_cast<float>(s) / steps));
    }
  }
  out.push_back(points.back());
  return out;
}

Contour ellipse(Point centre, float rx, float ry, float turn) {
  const int n = std::clamp(static_cast<int>(4 + 2.5f * std::sqrt(std::max(rx, ry))) * 2, 12, 64);
  const float c = std::cos(turn), s = std::sin(turn);
  Contour out(n);
  for (int i = 0; i < n; ++i) {
    const float angle = 2 * std::numbers::pi_v<float> * static_cast<float>(i) / n;
    const float x = rx * std::cos(angle), y = ry * std::sin(angle);
    out[i] = centre + Point{x * c - y * s, x * s + y * c};
  }
  return out;
}

void Canvas::blob(Point centre, float rx, float ry, Colour colour, float alpha, const Mask* clip,
                  float turn) {
  const float reach = std::max(rx, ry), c = std::cos(turn), s = std::sin(turn);
  const int x0 = std::max(static_cast<int>(centre.x - reach), 0);
  const int x1 = std::min(static_cast<int>(centre.x + reach) + 2, size_);
  const int y0 = std::max(static_cast<int>(centre.y - reach), 0);
  const int y1 = std::min(static_cast<int>(centre.y + reach) + 2, size_);
  for (int y = y0; y < y1; ++y) {
    for (int x = x0; x < x1; ++x) {
      const float dx = x + 0.5f - centre.x, dy = y + 0.5f - centre.y;
      const float u = (dx * c + dy * s) / rx, v = (dy * c - dx * s) / ry;
      const float rest = 1 - u * u - v * v;
      if (rest <= 0) continue;
      const std::size_t i = static_cast<std::size_t>(y) * size_ + x;
      pixels_[i] = mix(pixels_[i], colour, alpha * rest * rest * (clip ? (*clip)[i] : 1.0f));
    }
  }
}

Mask Canvas::mask(const Contour& contour) {
  Mask out(pixels_.size());
  cover(contour, [&](int x, int y, float coverage) {
    out[static_cast<std::size_t>(y) * size_ + x] = coverage;
  });
  return out;
}

void Canvas::blur(float w) {
  const float centre = 1 - 2 * w;
  for (int y = 0; y < size_; ++y) {
    Colour* row = pixels_.data() + static_cast<std::size_t>(y) * size_;
    Colour before = row[0];
    for (int x = 0; x < size_; ++x) {
      const Colour here = row[x], after = row[std::min(x + 1, size_ - 1)];
      row[x] = (before + after) * w + here * centre;
      before = here;
    }
  }
  std::vector<Colour> above(pixels_.begin(), pixels_.begin() + size_);
  for (int y = 0; y < size_; ++y) {
    Colour* row = pixels_.data() + static_cast<std::size_t>(y) * size_;
    const Colour* next = y + 1 < size_ ? row + size_ : row;
    for (int x = 0; x < size_; ++x) {
      const Colour here = row[x];
      row[x] = (above[x] + next[x]) * w + here * centre;
      above[x] = here;
    }
  }
}

// Adds one edge's signed area to the buffer: the prefix sum of a row is then its coverage.
void Canvas::edge(Point a, Point b) {
  if (a.y == b.y) return;
  const float sign = a.y < b.y ? 1.0f : -1.0f;
  if (sign < 0) std::swap(a, b);
  const float limit = static_cast<float>(size_);
  if (b.y <= 0 || a.y >= limit) return;
  const float slope = (b.x - a.x) / (b.y - a.y);
  float x = a.x;
  if (a.y < 0) x -= a.y * slope, a.y = 0;
  const int last = std::min(static_cast<int>(std::ceil(b.y)), size_);
  for (int row = static_cast<int>(a.y); row < last; ++row) {
    float* out = area_.data() + static_cast<std::size_t>(row) * (size_ + 2);
    const float height = std::min(row + 1.0f, b.y) - std::max(static_cast<float>(row), a.y);
    if (height <= 0) continue;
    const float next = x + slope * height, d = height * sign;
    const float x0 = std::clamp(std::min(x, next), 0.0f, limit);
    const float x1 = std::clamp(std::max(x, next), 0.0f, limit);
    x = next;
    const int first = static_cast<int>(x0), end = static_cast<int>(std::ceil(x1));
    if (end <= first + 1) {
      const float middle = 0.5f * (x0 + x1) - first;
      out[first] += d * (1 - middle);
      out[first + 1] += d * middle;
      continue;
    }
    const float part = 1 / (x1 - x0), head = 1 - (x0 - first), tail = x1 - (end - 1);
    const float head_area = 0.5f * part * head * head, tail_area = 0.5f * part * tail * tail;
    out[first] += d * head_area;
    if (end == first + 2) {
      out[first + 1] += d * (1 - head_area - tail_area);
    } else {
      const float second = part * (1.5f - (x0 - first));
      out[first + 1] += d * (second - head_area);
      for (int i = first + 2; i < end - 1; ++i) out[i] += d * part;
      out[end - 1] += d * (1 - (second + (end - first - 3) * part) - tail_area);
    }
    out[end] += d * tail_area;
  }
}

}  // namespace ftrain::portraits
