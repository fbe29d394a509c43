#include <algorithm>

#include "plugins/devices/cpu/reference/plain.h"

namespace ftrain::cpu {
namespace {

template <class T>
auto sum(const Node& node) {
  return [n = elements(node.input(0))](const Buffers& at) {
    const T* x = at.input<T>(0);
    double total = 0;
    for (std::int64_t i = 0; i < n; ++i) total += x[i];
    *at.output<T>(0) = static_cast<T>(total);
  };
}

template <class T>
auto squared_norm(const Node& node) {
  std::vector<std::int64_t> counts;
  for (const Value& input : node.inputs) counts.push_back(elements(input.type()));
  return [counts](const Buffers& at) {
    double total = 0;
    for (std::size_t t = 0; t < counts.size(); ++t) {
      const T* x = at.input<T>(t);
      for (std::int64_t i = 0; i < counts[t]; ++i) total += double(x[i]) * double(x[i]);
    }
    *at.output<T>(0) = static_cast<T>(total);
  };
}

// [rows, C] -> [C]
template <class T>
auto sum_rows(const Node& node) {
  return [rows = node.input(0).shape[0], columns = node.input(0).shape[1]](const Buffers& at) {
    const T* x = at.input<T>(0);
    T* y = at.output<T>(0);
    for (std::int64_t c = 0; c < columns; ++c) {
      double total = 0;
      for (std::int64_t r = 0; r < rows; ++r) total += x[r * columns + c];
      y[c] = static_cast<T>(total);
    }
  };
}

template <class T>
auto pool(const Node& node) {
  return [p = Planes(node.input(0).shape)](const Buffers& at) {
    const T* x = at.input<T>(0);
    T* y = at.output<T>(0);
    p.each([&](std::int64_t start, std::int64_t, std::int64_t) {
      double total = 0;
      for (std::int64_t i = start; i < start + p.positions; ++i) total += x[i];
      y[start / p.positions] = static_cast<T>(total / static_cast<double>(p.positions));
    });
  };
}

template <class T>
auto pool_grad(const Node& node) {
  return [p = Planes(node.outputs[0].shape)](const Buffers& at) {
    const T* dy = at.input<T>(0);
    T* dx = at.output<T>(0);
    p.each([&](std::int64_t start, std::int64_t, std::int64_t) {
      const double share = dy[start / p.positions] / static_cast<double>(p.positions);
      std::fill_n(dx + start, p.positions, static_cast<T>(share));
    });
  };
}

template <class T>
auto fill_like(const Node& node) {
  return [n = elements(node.outputs[0])](const Buffers& at) {
    std::fill_n(at.output<T>(0), n, *at.input<T>(0));
  };
}

template <class T>
auto repeat_rows(const Node& node) {
  return [rows = node.outputs[0].shape[0], columns = node.outputs[0].shape[1]](const Buffers& at) {
    const T* row = at.input<T>(0);
    T* y = at.output<T>(0);
    for (std::int64_t r = 0; r < rows; ++r) std::copy_n(row, columns, y + r * columns);
  };
}

}  // namespace

void add_plain_reductions(KernelList& list) {
  list.add(plain("sum", []<class T>(const Node& node, T) { return sum<T>(node); }));
  list.add(
      plain("squared_norm", []<class T>(const Node& node, T) { return squared_norm<T>(node); }));
  list.add(plain("sum_rows", []<class T>(const Node& node, T) { return sum_rows<T>(node); }));
  list.add(plain("sum_groups", []<class T>(const Node& node, T) { return sum_rows<T>(node); }));
  list.add(
      plain("global_average_pool", []<class T>(const Node& node, T) { return pool<T>(node); }));
  list.add(plain("global_average_pool_grad",
                 []<class T>(const Node& node, T) { return pool_grad<T>(node); }));
  list.add(plain("fill_like", []<class T>(const Node& node, T) { return fill_like<T>(node); }));
  list.add(plain("repeat_rows", []<class T>(const Node& node, T) { return repeat_rows<T>(node); }));
}

}  // namespace ftrain::cpu
