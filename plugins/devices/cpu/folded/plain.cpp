// Plain loops of the folded ops: the only ones of what is done once, and the oracle of the rest.
#include <algorithm>
#include <cmath>
#include <vector>

#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/device/layout.h"

namespace ftrain::cpu {
namespace {

class Plain : public Kernel {
 public:
  Plain(const Node& node, const KernelEnvironment& environment) : threads_(environment.threads) {
    for (const Value& input : node.inputs) {
      shapes_.push_back(input.valid() ? input.shape() : Shape());
    }
    result_ = node.outputs[0].shape;
  }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    for (void* const input : inputs) inputs_.push_back(static_cast<const float*>(input));
    for (void* const output : outputs) outputs_.push_back(static_cast<float*>(output));
  }

 protected:
  // An element of an operand; `otherwise` where the operand is absent.
  double at(std::size_t operand, std::int64_t i, double otherwise = 0) const {
    const float* const data = inputs_[operand];
    return data == nullptr ? otherwise : static_cast<double>(data[i]);
  }
  // Calls f(i) for i < items.
  template <class F>
  void each(std::int64_t items, const F& f) const {
#pragma omp parallel for num_threads(threads_)
    for (std::int64_t i = 0; i < items; ++i) f(i);
  }

  int threads_;
  std::vector<Shape> shapes_;
  Shape result_;
  std::vector<const float*> inputs_;
  std::vector<float*> outputs_;
};

class Norm final : public Plain {
 public:
  Norm(const Node& node, const KernelEnvironment& environment)
      : Plain(node, environment), eps_(node.attributes.number("eps")) {}

  void launch() override {
    for (std::int64_t c = 0; c < result_[0]; ++c) {
      const double factor = at(2, c) / std::sqrt(at(1, c) + eps_);
      outputs_[0][c] = static_cast<float>(factor);
      outputs_[1][c] = static_cast<float>(at(3, c) - at(0, c) * factor);
    }
  }

 private:
  double eps_;
};

class Weight final : public Plain {
 public:
  Weight(const Node& node, const KernelEnvironment& environment)
      : Plain(node, environment), groups_(node.attributes.integer("groups")) {}

  void launch() override {
    const std::int64_t narrow = result_[1], taps = result_[2] * result_[3];
    const std::int64_t rows_of_group = result_[0] / groups_;
    each(result_[0], [&](std::int64_t k) {
      for (std::int64_t c = 0; c < narrow; ++c) {
        const double factor = at(2, k, 1) * at(1, k / rows_of_group * narrow + c, 1);
        for (std::int64_t tap = 0; tap < taps; ++tap) {
          const std::int64_t i = (k * narrow + c) * taps + tap;
          outputs_[0][i] = static_cast<float>(at(0, i) * factor);
        }
      }
    });
  }

 private:
  std::int64_t groups_;
};

struct Geometry {
  explicit Geometry(const Node& node)
      : stride(node.attributes.integer("stride")),
        padding(node.attributes.integer("padding")),
        groups(node.attributes.integer("groups")) {}
  std::int64_t stride, padding, groups;
};

class Bias final : public Plain {
 public:
  Bias(const Node& node, const KernelEnvironment& environment)
      : Plain(node, environment),
        geometry_(node),
        image_(node.attributes.integers("shape")),
        by_position_(node.outputs[0].shape.rank() == 4) {}

  void launch() override {
    const Shape& w = shapes_[0];
    const std::int64_t taps = w[2] * w[3];
    each(w[0], [&](std::int64_t k) {
      // What each tap of the kernel adds where it does not fall into the padding.
      std::vector<double> tap(static_cast<std::size_t>(taps), 0.0);
      const std::int64_t first = k / (w[0] / geometry_.groups) * w[1];
      for (std::int64_t c = 0; c < w[1]; ++c) {
        for (std::int64_t t = 0; t < taps; ++t) {
          tap[static_cast<std::size_t>(t)] += at(0, (k * w[1] + c) * taps + t) * at(1, first + c);
        }
      }
      const std::int64_t height = by_position_ ? result_[2] : 1;
      const std::int64_t width = by_position_ ? result_[3] : 1;
      for (std::int64_t y = 0; y < height; ++y) {
        for (std::int64_t x = 0; x < width; ++x) {
          outputs_[0][(k * height + y) * width + x] =
              static_cast<float>(sum_of(tap, y, x) * at(2, k, 1) + at(3, k));
        }
      }
    });
  }

 private:
  double sum_of(const std::vector<double>& tap, std::int64_t y, std::int64_t x) const {
    const Shape& w = shapes_[0];
    double sum = 0;
    for (std::int64_t r = 0; r < w[2]; ++r) {
      for (std::int64_t s = 0; s < w[3]; ++s) {
        const std::int64_t row = y * geometry_.stride - geometry_.padding + r;
        const std::int64_t column = x * geometry_.stride - geometry_.padding + s;
        const bool inside = row >= 0 && row < image_[2] && column >= 0 && column < image_[3];
        if (inside || !by_position_) sum += tap[static_cast<std::size_t>(r * w[3] + s)];
      }
    }
    return sum;
  }

  Geometry geometry_;
  Shape image_;
  bool by_position_;
};

class Convolution final : public Plain {
 public:
  Convolution(const Node& node, const KernelEnvironment& environment)
      : Plain(node, environment), geometry_(node), by_position_(shapes_[2].rank() == 4) {}

  void launch() override {
    const std::int64_t positions = result_[2] * result_[3];
    each(result_[0] * result_[1], [&](std::int64_t image) {
      const std::int64_t n = image / result_[1], k = image % result_[1];
      for (std::int64_t p = 0; p < positions; ++p) {
        const std::int64_t i = image * positions + p;
        double z = product(n, k, p / result_[3], p % result_[3]);
        z += at(2, by_position_ ? k * positions + p : k);
        z = std::max(z, 0.0) + at(3, k, 1) * std::min(z, 0.0);
        outputs_[0][i] = static_cast<float>(z + at(4, i));
      }
    });
  }

 private:
  double product(std::int64_t n, std::int64_t k, std::int64_t y, std::int64_t x) const {
    const Shape &image = shapes_[0], &w = shapes_[1];
    const std::int64_t first = k / (w[0] / geometry_.groups) * w[1];
    double sum = 0;
    for (std::int64_t r = 0; r < w[2]; ++r) {
      const std::int64_t row = y * geometry_.stride - geometry_.padding + r;
      if (row < 0 || row >= image[2]) continue;
      for (std::int64_t s = 0; s < w[3]; ++s) {
        const std::int64_t column = x * geometry_.stride - geometry_.padding + s;
        if (column < 0 || column >= image[3]) continue;
        for (std::int64_t c = 0; c < w[1]; ++c) {
          sum += at(0, ((n * image[1] + first + c) * image[2] + row) * image[3] + column) *
                 at(1, ((k * w[1] + c) * w[2] + r) * w[3] + s);
        }
      }
    }
    return sum;
  }

  Geometry geometry_;
  bool by_position_;
};

std::string refuse(const Node& node, const KernelEnvironment&) {
  for (const Value& input : node.inputs) {
    if (!input.valid()) continue;
    if (input.dtype() != DType::f32) return "only f32";
    if (input.type().layout != row_major) return "only row-major";
  }
  return node.outputs[0].layout == row_major ? "" : "only row-major";
}

template <class K>
std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<K>(node, environment);
}

}  // namespace

void add_plain_folded_kernels(KernelList& list) {
  list.add({"fold_norm", "plain", 0, refuse, make<Norm>});
  list.add({"fold_weight", "plain", 0, refuse, make<Weight>});
  list.add({"fold_bias", "plain", 0, refuse, make<Bias>});
  list.add({"conv2d_folded", "plain", 0, refuse, make<Convolution>});
}

}  // namespace ftrain::cpu
