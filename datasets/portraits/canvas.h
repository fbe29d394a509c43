// A small anti-aliased painter: filled contours, strokes of varying width, soft blobs.
//
// Coverage is exact signed area per pixel (edges accumulated into one row-prefix buffer), so shapes
// have smooth edges without supersampling. Colours are sRGB values in [0, 1], blended as they are.
// Threads: a Canvas belongs to one thread. Failure: none; what lies outside is clipped.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace ftrain::portraits {

struct Point {
  float x = 0, y = 0;
};
inline Point operator+(Point a, Point b) {
  return {a.x + b.x, a.y + b.y};
}
inline Point operator-(Point a, Point b) {
  return {a.x - b.x, a.y - b.y};
}
inline Point operator*(Point a, float s) {
  return {a.x * s, a.y * s};
}

struct Colour {
  float r = 0, g = 0, b = 0;
};
inline Colour operator+(Colour a, Colour b) {
  return {a.r + b.r, a.g + b.g, a.b + b.b};
}
inline Colour operator*(Colour a, float s) {
  return {a.r * s, a.g * s, a.b * s};
}
inline Colour operator*(Colour a, Colour b) {
  return {a.r * b.r, a.g * b.g, a.b * b.b};
}
inline Colour mix(Colour a, Colour b, float t) {
  return a * (1 - t) + b * t;
}

inline float clamp01(float x) {
  return std::min(std::max(x, 0.0f), 1.0f);
}
inline float smooth(float low, float high, float x) {
  const float t = clamp01((x - low) / (high - low));
  return t * t * (3 - 2 * t);
}

using Contour = std::vector<Point>;
using Mask = std::vector<float>;  // one coverage per pixel

// A smooth curve through the points (Catmull-Rom, flattened).
Contour smooth_closed(const Contour& points, int steps = 6);
Contour smooth_open(const Contour& points, int steps = 6);
Contour ellipse(Point centre, float rx, float ry, float turn = 0);
// The outline of a stroke along `line`; `width(t)` is the full width at t in [0, 1].
template <class Width>
Contour stroke(const Contour& line, Width&& width) {
  const std::size_t n = line.size();
  Contour out(2 * n);
  for (std::size_t i = 0; i < n; ++i) {
    const Point d = line[std::min(i + 1, n - 1)] - line[i == 0 ? 0 : i - 1];
    const float length = std::max(std::hypot(d.x, d.y), 1e-6f);
    const float half = 0.5f * width(static_cast<float>(i) / static_cast<float>(n - 1)) / length;
    const Point side{-d.y * half, d.x * half};
    out[i] = line[i] + side;
    out[2 * n - 1 - i] = line[i] - side;
  }
  return out;
}

class Canvas {
 public:
  explicit Canvas(int size)
      : size_(size),
        pixels_(static_cast<std::size_t>(size) * size),
        area_(static_cast<std::size_t>(size) * (size + 2)) {}

  int size() const { return size_; }
  Colour& at(int x, int y) { return pixels_[static_cast<std::size_t>(y) * size_ + x]; }

  // Paints the inside of the contour. `paint` is a Colour or a function (x, y) -> Colour of the
  // pixel's centre. Only where `clip` is set, in its measure.
  template <class Paint>
  void fill(const Contour& contour, Paint&& paint, float alpha = 1, const Mask* clip = nullptr) {
    cover(contour, [&](int x, int y, float coverage) {
      const std::size_t i = static_cast<std::size_t>(y) * size_ + x;
      if (clip) coverage *= (*clip)[i];
      coverage *= alpha;
      if constexpr (std::is_convertible_v<Paint, Colour>) {
        pixels_[i] = mix(pixels_[i], paint, coverage);
      } else {
        pixels_[i] = mix(pixels_[i], paint(x + 0.5f, y + 0.5f), coverage);
      }
    });
  }
  // An ellipse that fades out towards its rim.
  void blob(Point centre, float rx, float ry, Colour colour, float alpha,
            const Mask* clip = nullptr, float turn = 0);
  Mask mask(const Contour& contour);
  // A blur with the kernel (w, 1 - 2w, w) in both directions, 0 <= w <= 1/3.
  void blur(float w);

 private:
  template <class Visit>
  void cover(const Contour& contour, Visit&& visit) {
    float left = 1e9f, right = -1e9f, top = 1e9f, bottom = -1e9f;
    for (const Point& p : contour) {
      left = std::min(left, p.x), right = std::max(right, p.x);
      top = std::min(top, p.y), bottom = std::max(bottom, p.y);
    }
    const float limit = static_cast<float>(size_);
    if (contour.size() < 3 || !(right > 0 && left < limit && bottom > 0 && top < limit)) return;
    for (std::size_t i = 0; i < contour.size(); ++i) {
      edge(contour[i], contour[i + 1 == contour.size() ? 0 : i + 1]);
    }
    const int x0 = static_cast<int>(std::max(left, 0.0f));
    const int x1 = std::min(static_cast<int>(std::min(right, limit)) + 2, size_ + 2);
    const int y0 = static_cast<int>(std::max(top, 0.0f));
    const int y1 = std::min(static_cast<int>(std::min(bottom, limit)) + 1, size_);
    for (int y = y0; y < y1; ++y) {
      float* row = area_.data() + static_cast<std::size_t>(y) * (size_ + 2);
      float sum = 0;
      for (int x = x0; x < x1; ++x) {
        sum += row[x];
        row[x] = 0;
        const float coverage = std::min(std::fabs(sum), 1.0f);
        if (coverage > 0.004f && x < size_) visit(x, y, coverage);
      }
    }
  }
  void edge(Point a, Point b);

  int size_;
  std::vector<Colour> pixels_;
  std::vector<float> area_;  // all zero between calls
};

}  // namespace ftrain::portraits
