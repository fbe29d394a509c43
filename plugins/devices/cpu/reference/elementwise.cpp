#include <cmath>
#include <cstring>

#include "ftrain/ops/random.h"
#include "plugins/devices/cpu/reference/convert.h"
#include "plugins/devices/cpu/reference/plain.h"

namespace ftrain::cpu {
namespace {

// Element by element: f(a[i]) and f(a[i], b[i]).
template <class T, class F>
auto unary(const Node& node, F f) {
  return [n = elements(node.outputs[0]), f](const Buffers& at) {
    const T* x = at.input<T>(0);
    T* y = at.output<T>(0);
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(x[i]);
  };
}

template <class T, class F>
auto binary(const Node& node, F f) {
  return [n = elements(node.outputs[0]), f](const Buffers& at) {
    const T* a = at.input<T>(0);
    const T* b = at.input<T>(1);
    T* y = at.output<T>(0);
    for (std::int64_t i = 0; i < n; ++i) y[i] = f(a[i], b[i]);
  };
}

template <class T>
struct Bounds {
  explicit Bounds(const Node& node)
      : low(static_cast<T>(node.attributes.number("low"))),
        high(static_cast<T>(node.attributes.number("high"))) {}
  T low, high;
};

template <class T>
auto prelu(const Node& node) {
  return [p = Planes(node.outputs[0].shape)](const Buffers& at) {
    const T* x = at.input<T>(0);
    const T* slope = at.input<T>(1);
    T* y = at.output<T>(0);
    p.each([&](std::int64_t start, std::int64_t, std::int64_t c) {
      for (std::int64_t i = start; i < start + p.positions; ++i) {
        y[i] = x[i] > 0 ? x[i] : slope[c] * x[i];
      }
    });
  };
}

template <class T>
auto prelu_grad(const Node& node) {
  const Planes planes(node.outputs[0].shape);
  const std::vector<double> zeros(static_cast<std::size_t>(planes.channels));
  return [p = planes, sums = zeros](const Buffers& at) mutable {
    const T* dy = at.input<T>(0);
    const T* x = at.input<T>(1);
    const T* slope = at.input<T>(2);
    T* dx = at.output<T>(0);
    T* dslope = at.output<T>(1);
    std::fill(sums.begin(), sums.end(), 0.0);
    p.each([&](std::int64_t start, std::int64_t, std::int64_t c) {
      for (std::int64_t i = start; i < start + p.positions; ++i) {
        dx[i] = x[i] > 0 ? dy[i] : slope[c] * dy[i];
        if (!(x[i] > 0)) sums[static_cast<std::size_t>(c)] += double(dy[i]) * double(x[i]);
      }
    });
    for (std::size_t c = 0; c < sums.size(); ++c) dslope[c] = static_cast<T>(sums[c]);
  };
}

template <class T>
auto dropout(const Node& node) {
  const Attributes& a = node.attributes;
  const Shape& shape = node.outputs[0].shape;
  const double p = a.number("p");
  const std::int64_t count = shape.elements();
  return [n = count, chance = static_cast<float>(p), factor = static_cast<T>(1 / (1 - p)),
          key = mix64(static_cast<std::uint64_t>(a.integer("seed")), dropout_purpose),
          first = a.integer("first_sample") * (count / shape[0])](const Buffers& at) {
    const T* x = at.input<T>(0);
    const std::int64_t step = *at.input<std::int64_t>(1);
    T* y = at.output<T>(0);
    for (std::int64_t i = 0; i < n; ++i) {
      y[i] = dropout_keeps(key, step, first + i, chance) ? x[i] * factor : T(0);
    }
  };
}

std::unique_ptr<Kernel> make_cast(const Node& node, const KernelEnvironment&) {
  return kernel_of([n = elements(node.outputs[0]), from = node.input(0).dtype,
                    to = node.outputs[0].dtype](const Buffers& at) {
    convert(at.inputs[0], from, at.outputs[0], to, n);
  });
}

// A view shares its input's storage when the plan can let it; the copy is for when it cannot.
std::unique_ptr<Kernel> make_reshape(const Node& node, const KernelEnvironment&) {
  return kernel_of([bytes = node.outputs[0].bytes()](const Buffers& at) {
    std::memmove(at.outputs[0], at.inputs[0], bytes);
  });
}

}  // namespace

void add_plain_elementwise(KernelList& list) {
  list.add(plain("add", []<class T>(const Node& node, T) {
    return binary<T>(node, [](T a, T b) { return a + b; });
  }));
  list.add(plain("mul", []<class T>(const Node& node, T) {
    return binary<T>(node, [](T a, T b) { return a * b; });
  }));
  list.add(plain("scale", []<class T>(const Node& node, T) {
    return unary<T>(node, [factor = static_cast<T>(node.attributes.number("factor"))](T x) {
      return x * factor;
    });
  }));
  list.add(plain("scale_by", []<class T>(const Node& node, T) {
    return [n = elements(node.outputs[0])](const Buffers& at) {
      const T* x = at.input<T>(0);
      const T factor = *at.input<T>(1);
      T* y = at.output<T>(0);
      for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
    };
  }));
  list.add(plain("shift", []<class T>(const Node& node, T) {
    return unary<T>(node, [summand = static_cast<T>(node.attributes.number("summand"))](T x) {
      return x + summand;
    });
  }));
  list.add(plain("clamp", []<class T>(const Node& node, T) {
    return unary<T>(node, [of = Bounds<T>(node)](T x) {
      return x < of.low ? of.low : x > of.high ? of.high : x;  // NaN goes on
    });
  }));
  list.add(plain("clamp_grad", []<class T>(const Node& node, T) {
    return binary<T>(node, [of = Bounds<T>(node)](T dy, T x) {
      return x >= of.low && x <= of.high ? dy : T(0);
    });
  }));
  list.add(plain("sqrt", []<class T>(const Node& node, T) {
    return unary<T>(node, [](T x) { return std::sqrt(x); });
  }));
  list.add(plain("reciprocal", []<class T>(const Node& node, T) {
    return unary<T>(node, [](T x) { return 1 / x; });
  }));
  list.add(plain("scale_rows", []<class T>(const Node& node, T) {
    return [rows = node.outputs[0].shape[0], width = node.outputs[0].shape[1]](const Buffers& at) {
      const T* x = at.input<T>(0);
      const T* factors = at.input<T>(1);
      T* y = at.output<T>(0);
      for (std::int64_t i = 0; i < rows * width; ++i) y[i] = x[i] * factors[i / width];
    };
  }));
  list.add(plain("relu", []<class T>(const Node& node, T) {
    return unary<T>(node, [](T x) { return x > 0 ? x : T(0); });
  }));
  list.add(plain("relu_grad", []<class T>(const Node& node, T) {
    return binary<T>(node, [](T dy, T x) { return x > 0 ? dy : T(0); });
  }));
  list.add(plain("prelu", []<class T>(const Node& node, T) { return prelu<T>(node); }));
  list.add(plain("prelu_grad", []<class T>(const Node& node, T) { return prelu_grad<T>(node); }));
  list.add(plain("dropout", []<class T>(const Node& node, T) { return dropout<T>(node); }));
  list.add({.op = "cast", .name = plain_name, .refuse = refuse_layouts, .make = make_cast});
  list.add({.op = "reshape", .name = plain_name, .refuse = refuse_layouts, .make = make_reshape});
}

}  // namespace ftrain::cpu
