// Convolutions and matrix products. Each accumulates a row of outputs in double, so that the inner
// loop runs along memory.
#include <algorithm>

#include "plugins/devices/cpu/reference/plain.h"

namespace ftrain::cpu {
namespace {

struct Convolution {
  std::int64_t batch, channels, height, width;          // x
  std::int64_t kernels, group_channels, rows, columns;  // weight
  std::int64_t out_height, out_width;                   // y
  std::int64_t stride, padding, group_kernels;

  Convolution(const Shape& x, const Shape& w, const Shape& y, const Attributes& a)
      : batch(x[0]),
        channels(x[1]),
        height(x[2]),
        width(x[3]),
        kernels(w[0]),
        group_channels(w[1]),
        rows(w[2]),
        columns(w[3]),
        out_height(y[2]),
        out_width(y[3]),
        stride(a.integer("stride")),
        padding(a.integer("padding")),
        group_kernels(w[0] / a.integer("groups")) {}

  std::int64_t group_of_kernel(std::int64_t k) const { return k / group_kernels; }
  std::int64_t x_row(std::int64_t n, std::int64_t c, std::int64_t y) const {
    return ((n * channels + c) * height + y) * width;
  }
  std::int64_t y_row(std::int64_t n, std::int64_t k, std::int64_t y) const {
    return ((n * kernels + k) * out_height + y) * out_width;
  }
  std::int64_t w_at(std::int64_t k, std::int64_t c, std::int64_t r, std::int64_t s) const {
    return ((k * group_channels + c) * rows + r) * columns + s;
  }
  // Output columns [begin, end) whose input column ox stride + s - padding lies in the image.
  std::int64_t begin(std::int64_t s) const {
    return std::max<std::int64_t>(0, (padding - s + stride - 1) / stride);
  }
  std::int64_t end(std::int64_t s) const {
    const std::int64_t room = width - 1 + padding - s;
    return room < 0 ? 0 : std::min(out_width, room / stride + 1);
  }
};

template <class T>
auto conv2d(const Node& node) {
  const Convolution c(node.input(0).shape, node.input(1).shape, node.outputs[0].shape,
                      node.attributes);
  const std::vector<double> row(static_cast<std::size_t>(c.out_width));
  return [c, sums = row](const Buffers& at) mutable {
    const T* x = at.input<T>(0);
    const T* w = at.input<T>(1);
    T* y = at.output<T>(0);
    const auto one_row = [&](std::int64_t n, std::int64_t k, std::int64_t oy) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t gc = 0; gc < c.group_channels; ++gc) {
        const std::int64_t channel = c.group_of_kernel(k) * c.group_channels + gc;
        for (std::int64_t r = 0; r < c.rows; ++r) {
          const std::int64_t iy = oy * c.stride + r - c.padding;
          if (iy < 0 || iy >= c.height) continue;
          const T* line = x + c.x_row(n, channel, iy);
          for (std::int64_t s = 0; s < c.columns; ++s) {
            const double weight = w[c.w_at(k, gc, r, s)];
            const std::int64_t end = c.end(s);
            for (std::int64_t ox = c.begin(s); ox < end; ++ox) {
              sums[static_cast<std::size_t>(ox)] += weight * line[ox * c.stride + s - c.padding];
            }
          }
        }
      }
      T* out = y + c.y_row(n, k, oy);
      for (std::size_t ox = 0; ox < sums.size(); ++ox) out[ox] = static_cast<T>(sums[ox]);
    };
    for (std::int64_t n = 0; n < c.batch; ++n) {
      for (std::int64_t k = 0; k < c.kernels; ++k) {
        for (std::int64_t oy = 0; oy < c.out_height; ++oy) one_row(n, k, oy);
      }
    }
  };
}

template <class T>
auto conv2d_input_grad(const Node& node) {
  const Convolution c(node.outputs[0].shape, node.input(1).shape, node.input(0).shape,
                      node.attributes);
  const std::vector<double> row(static_cast<std::size_t>(c.width));
  return [c, sums = row](const Buffers& at) mutable {
    const T* dy = at.input<T>(0);
    const T* w = at.input<T>(1);
    T* dx = at.output<T>(0);
    const auto one_row = [&](std::int64_t n, std::int64_t channel, std::int64_t iy) {
      std::fill(sums.begin(), sums.end(), 0.0);
      const std::int64_t first = channel / c.group_channels * c.group_kernels;
      const std::int64_t gc = channel % c.group_channels;
      for (std::int64_t k = first; k < first + c.group_kernels; ++k) {
        for (std::int64_t r = 0; r < c.rows; ++r) {
          const std::int64_t from = iy + c.padding - r;
          if (from < 0 || from % c.stride != 0 || from / c.stride >= c.out_height) continue;
          const T* line = dy + c.y_row(n, k, from / c.stride);
          for (std::int64_t s = 0; s < c.columns; ++s) {
            const double weight = w[c.w_at(k, gc, r, s)];
            const std::int64_t end = c.end(s);
            for (std::int64_t ox = c.begin(s); ox < end; ++ox) {
              sums[static_cast<std::size_t>(ox * c.stride + s - c.padding)] += weight * line[ox];
            }
          }
        }
      }
      T* out = dx + c.x_row(n, channel, iy);
      for (std::size_t ix = 0; ix < sums.size(); ++ix) out[ix] = static_cast<T>(sums[ix]);
    };
    for (std::int64_t n = 0; n < c.batch; ++n) {
      for (std::int64_t channel = 0; channel < c.channels; ++channel) {
        for (std::int64_t iy = 0; iy < c.height; ++iy) one_row(n, channel, iy);
      }
    }
  };
}

template <class T>
auto conv2d_weight_grad(const Node& node) {
  const Convolution c(node.input(1).shape, node.outputs[0].shape, node.input(0).shape,
                      node.attributes);
  return [c](const Buffers& at) {
    const T* dy = at.input<T>(0);
    const T* x = at.input<T>(1);
    T* dw = at.output<T>(0);
    const auto one = [&](std::int64_t k, std::int64_t gc, std::int64_t r, std::int64_t s) {
      const std::int64_t channel = c.group_of_kernel(k) * c.group_channels + gc;
      const std::int64_t begin = c.begin(s), end = c.end(s);
      double sum = 0;
      for (std::int64_t n = 0; n < c.batch; ++n) {
        for (std::int64_t oy = 0; oy < c.out_height; ++oy) {
          const std::int64_t iy = oy * c.stride + r - c.padding;
          if (iy < 0 || iy >= c.height) continue;
          const T* line = x + c.x_row(n, channel, iy);
          const T* gradient = dy + c.y_row(n, k, oy);
          for (std::int64_t ox = begin; ox < end; ++ox) {
            sum += double(gradient[ox]) * double(line[ox * c.stride + s - c.padding]);
          }
        }
      }
      return static_cast<T>(sum);
    };
    for (std::int64_t k = 0; k < c.kernels; ++k) {
      for (std::int64_t gc = 0; gc < c.group_channels; ++gc) {
        for (std::int64_t r = 0; r < c.rows; ++r) {
          for (std::int64_t s = 0; s < c.columns; ++s) dw[c.w_at(k, gc, r, s)] = one(k, gc, r, s);
        }
      }
    }
  };
}

template <class T>
auto matmul(const Node& node) {
  const bool ta = node.attributes.flag("transpose_a"), tb = node.attributes.flag("transpose_b");
  const Shape& a_shape = node.input(0).shape;
  const Shape& y_shape = node.outputs[0].shape;
  const std::int64_t rows = y_shape[0], columns = y_shape[1], inner = a_shape[ta ? 0 : 1];
  const std::vector<double> row(static_cast<std::size_t>(columns));
  return [=, sums = row](const Buffers& at) mutable {
    const T* a = at.input<T>(0);
    const T* b = at.input<T>(1);
    T* y = at.output<T>(0);
    for (std::int64_t i = 0; i < rows; ++i) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::int64_t k = 0; k < inner; ++k) {
        const double left = ta ? a[k * rows + i] : a[i * inner + k];
        for (std::int64_t j = 0; j < columns; ++j) {
          sums[static_cast<std::size_t>(j)] += left * (tb ? b[j * inner + k] : b[k * columns + j]);
        }
      }
      for (std::int64_t j = 0; j < columns; ++j) {
        y[i * columns + j] = static_cast<T>(sums[static_cast<std::size_t>(j)]);
      }
    }
  };
}

template <class T>
auto add_bias(const Node& node) {
  return [rows = node.outputs[0].shape[0], columns = node.outputs[0].shape[1]](const Buffers& at) {
    const T* x = at.input<T>(0);
    const T* bias = at.input<T>(1);
    T* y = at.output<T>(0);
    for (std::int64_t i = 0; i < rows * columns; ++i) y[i] = x[i] + bias[i % columns];
  };
}

}  // namespace

void add_plain_products(KernelList& list) {
  list.add(plain("conv2d", []<class T>(const Node& node, T) { return conv2d<T>(node); }));
  list.add(plain("conv2d_input_grad",
                 []<class T>(const Node& node, T) { return conv2d_input_grad<T>(node); }));
  list.add(plain("conv2d_weight_grad",
                 []<class T>(const Node& node, T) { return conv2d_weight_grad<T>(node); }));
  list.add(plain("matmul", []<class T>(const Node& node, T) { return matmul<T>(node); }));
  list.add(plain("add_bias", []<class T>(const Node& node, T) { return add_bias<T>(node); }));
}

}  // namespace ftrain::cpu
