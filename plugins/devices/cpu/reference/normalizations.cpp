// Formulas: ftrain/ops/normalization.h.
#include <algorithm>
#include <cmath>

#include "plugins/devices/cpu/reference/plain.h"

namespace ftrain::cpu {
namespace {

double inverse_deviation(double variance, double eps) {
  return 1 / std::sqrt(variance + eps);
}

template <class T>
auto batch_moments(const Node& node) {
  const Planes planes(node.input(0).shape, node.outputs[0].shape[0]);
  const std::vector<double> zeros(static_cast<std::size_t>(elements(node.outputs[0])));
  return [p = planes, sums = zeros](const Buffers& at) mutable {
    const T* x = at.input<T>(0);
    T* mean = at.output<T>(0);
    T* variance = at.output<T>(1);
    const auto count = static_cast<double>(p.count());
    const auto accumulate = [&](const auto& term) {
      std::fill(sums.begin(), sums.end(), 0.0);
      p.each([&](std::int64_t start, std::int64_t row, std::int64_t) {
        double& total = sums[static_cast<std::size_t>(row)];
        for (std::int64_t i = start; i < start + p.positions; ++i) total += term(x[i], row);
      });
    };
    accumulate([](double value, std::int64_t) { return value; });
    for (std::size_t i = 0; i < sums.size(); ++i) mean[i] = static_cast<T>(sums[i] / count);
    accumulate([mean](double value, std::int64_t row) {
      return (value - double(mean[row])) * (value - double(mean[row]));
    });
    for (std::size_t i = 0; i < sums.size(); ++i) variance[i] = static_cast<T>(sums[i] / count);
  };
}

template <class T>
auto batch_norm(const Node& node) {
  // Fixed statistics are [C]: moments of one group.
  const Shape& moments = node.input(1).shape;
  const Planes planes(node.input(0).shape, moments.rank() == 2 ? moments[0] : 1);
  return [p = planes, eps = node.attributes.number("eps")](const Buffers& at) {
    const T* x = at.input<T>(0);
    const T* mean = at.input<T>(1);
    const T* variance = at.input<T>(2);
    const T* gamma = at.input<T>(3);
    const T* beta = at.input<T>(4);
    T* y = at.output<T>(0);
    p.each([&](std::int64_t start, std::int64_t row, std::int64_t c) {
      const double factor = gamma[c] * inverse_deviation(variance[row], eps);
      for (std::int64_t i = start; i < start + p.positions; ++i) {
        y[i] = static_cast<T>((double(x[i]) - double(mean[row])) * factor + double(beta[c]));
      }
    });
  };
}

template <class T>
auto batch_norm_sums(const Node& node) {
  const Planes planes(node.input(0).shape, node.input(2).shape[0]);
  const std::vector<double> zeros(static_cast<std::size_t>(elements(node.outputs[0])));
  return [p = planes, eps = node.attributes.number("eps"), gammas = zeros,
          betas = zeros](const Buffers& at) mutable {
    const T* dy = at.input<T>(0);
    const T* x = at.input<T>(1);
    const T* mean = at.input<T>(2);
    const T* variance = at.input<T>(3);
    T* dgamma = at.output<T>(0);
    T* dbeta = at.output<T>(1);
    std::fill(gammas.begin(), gammas.end(), 0.0);
    std::fill(betas.begin(), betas.end(), 0.0);
    p.each([&](std::int64_t start, std::int64_t row, std::int64_t) {
      const double inverse = inverse_deviation(variance[row], eps);
      const auto r = static_cast<std::size_t>(row);
      for (std::int64_t i = start; i < start + p.positions; ++i) {
        gammas[r] += double(dy[i]) * (double(x[i]) - double(mean[row])) * inverse;
        betas[r] += dy[i];
      }
    });
    for (std::size_t r = 0; r < gammas.size(); ++r) {
      dgamma[r] = static_cast<T>(gammas[r]);
      dbeta[r] = static_cast<T>(betas[r]);
    }
  };
}

template <class T>
auto batch_norm_input_grad(const Node& node) {
  const Planes planes(node.input(0).shape, node.input(2).shape[0]);
  const auto count = static_cast<double>(planes.count() * node.attributes.integer("ranks"));
  return [p = planes, count, eps = node.attributes.number("eps")](const Buffers& at) {
    const T* dy = at.input<T>(0);
    const T* x = at.input<T>(1);
    const T* mean = at.input<T>(2);
    const T* variance = at.input<T>(3);
    const T* gamma = at.input<T>(4);
    const T* dgamma = at.input<T>(5);
    const T* dbeta = at.input<T>(6);
    T* dx = at.output<T>(0);
    p.each([&](std::int64_t start, std::int64_t row, std::int64_t c) {
      const double inverse = inverse_deviation(variance[row], eps);
      for (std::int64_t i = start; i < start + p.positions; ++i) {
        const double normal = (double(x[i]) - double(mean[row])) * inverse;
        dx[i] = static_cast<T>(gamma[c] * inverse *
                               (dy[i] - dbeta[row] / count - normal * (dgamma[row] / count)));
      }
    });
  };
}

template <class T>
auto batch_norm_fixed_input_grad(const Node& node) {
  return [p = Planes(node.input(0).shape), eps = node.attributes.number("eps")](const Buffers& at) {
    const T* dy = at.input<T>(0);
    const T* variance = at.input<T>(1);
    const T* gamma = at.input<T>(2);
    T* dx = at.output<T>(0);
    p.each([&](std::int64_t start, std::int64_t, std::int64_t c) {
      const double factor = gamma[c] * inverse_deviation(variance[c], eps);
      for (std::int64_t i = start; i < start + p.positions; ++i) {
        dx[i] = static_cast<T>(dy[i] * factor);
      }
    });
  };
}

template <class T>
auto moment_spread(const Node& node) {
  return [n = elements(node.outputs[0])](const Buffers& at) {
    const T* variance = at.input<T>(0);
    const T* mean = at.input<T>(1);
    const T* mean_of_all = at.input<T>(2);
    T* spread = at.output<T>(0);
    for (std::int64_t i = 0; i < n; ++i) {
      const double distance = double(mean[i]) - double(mean_of_all[i]);
      spread[i] = static_cast<T>(variance[i] + distance * distance);
    }
  };
}

template <class T>
auto update_running(const Node& node) {
  const Shape& moments = node.input(2).shape;
  const auto count = static_cast<double>(node.attributes.integer("count"));
  // A single sample has no unbiased variance; its biased one (0) is taken.
  const double unbias = count > 1 ? count / (count - 1) : 1;
  return [groups = moments[0], channels = moments[1], unbias,
          momentum = node.attributes.number("momentum")](const Buffers& at) {
    T* running[] = {at.state<T>(0), at.state<T>(1)};
    const T* batch[] = {at.input<T>(2), at.input<T>(3)};
    if (*at.input<T>(4) == T(0)) return;
    for (int k = 0; k < 2; ++k) {
      for (std::int64_t c = 0; c < channels; ++c) {
        double total = 0;
        for (std::int64_t g = 0; g < groups; ++g) total += batch[k][g * channels + c];
        const double value = total / static_cast<double>(groups) * (k == 1 ? unbias : 1);
        running[k][c] = static_cast<T>((1 - momentum) * running[k][c] + momentum * value);
      }
    }
  };
}

constexpr double smallest_norm = 1e-12;

template <class T>
auto normalize(const Node& node) {
  return [rows = node.input(0).shape[0], columns = node.input(0).shape[1]](const Buffers& at) {
    const T* x = at.input<T>(0);
    T* y = at.output<T>(0);
    T* norms = at.output<T>(1);
    for (std::int64_t r = 0; r < rows; ++r, x += columns, y += columns) {
      double squares = 0;
      for (std::int64_t i = 0; i < columns; ++i) squares += double(x[i]) * double(x[i]);
      const double norm = std::sqrt(squares);
      norms[r] = static_cast<T>(norm);
      for (std::int64_t i = 0; i < columns; ++i) {
        y[i] = static_cast<T>(x[i] / std::max(norm, smallest_norm));
      }
    }
  };
}

template <class T>
auto normalize_grad(const Node& node) {
  return [rows = node.input(0).shape[0], columns = node.input(0).shape[1]](const Buffers& at) {
    const T* dy = at.input<T>(0);
    const T* y = at.input<T>(1);
    const T* norms = at.input<T>(2);
    T* dx = at.output<T>(0);
    for (std::int64_t r = 0; r < rows; ++r, dy += columns, y += columns, dx += columns) {
      double along = 0;
      for (std::int64_t i = 0; i < columns; ++i) along += double(y[i]) * double(dy[i]);
      const double norm = std::max(double(norms[r]), smallest_norm);
      for (std::int64_t i = 0; i < columns; ++i) {
        dx[i] = static_cast<T>((dy[i] - y[i] * along) / norm);
      }
    }
  };
}

}  // namespace

void add_plain_normalizations(KernelList& list) {
  list.add(
      plain("batch_moments", []<class T>(const Node& node, T) { return batch_moments<T>(node); }));
  list.add(plain("batch_norm", []<class T>(const Node& node, T) { return batch_norm<T>(node); }));
  list.add(
      plain("batch_norm_fixed", []<class T>(const Node& node, T) { return batch_norm<T>(node); }));
  list.add(plain("batch_norm_sums",
                 []<class T>(const Node& node, T) { return batch_norm_sums<T>(node); }));
  list.add(plain("batch_norm_input_grad",
                 []<class T>(const Node& node, T) { return batch_norm_input_grad<T>(node); }));
  list.add(plain("batch_norm_fixed_input_grad", []<class T>(const Node& node, T) {
    return batch_norm_fixed_input_grad<T>(node);
  }));
  list.add(
      plain("moment_spread", []<class T>(const Node& node, T) { return moment_spread<T>(node); }));
  list.add(plain("update_running",
                 []<class T>(const Node& node, T) { return update_running<T>(node); }));
  list.add(plain("normalize", []<class T>(const Node& node, T) { return normalize<T>(node); }));
  list.add(plain("normalize_grad",
                 []<class T>(const Node& node, T) { return normalize_grad<T>(node); }));
}

}  // namespace ftrain::cpu
