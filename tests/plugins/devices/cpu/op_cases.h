// The op table: one row for every op, from which its tests are made. Parity of every kernel with
// the plain one under guard bytes (ops_test.cpp), gradients by finite differences
// (op_gradients_test.cpp). A row is a small graph on random leaves; every node in it and in its
// backward is tested, so that gradient ops need no rows of their own.
#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "ftrain/graph/gradients.h"
#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/ops.h"
#include "tests/plugins/devices/cpu/interpreter.h"

namespace ftrain::cpu {

// The graph of a row while it is being built, with what its leaves hold.
class CaseGraph {
 public:
  explicit CaseGraph(DType floating) : dtype(floating) {}

  // Random leaves: uniform in [low, high). Gradients are taken of `real` leaves alone.
  Value real(Shape shape, double low = -1, double high = 1) {
    const Value value = fixed(std::move(shape), low, high);
    differentiable.push_back(value);
    return value;
  }
  Value fixed(Shape shape, double low = -1, double high = 1) {
    const Value value = graph.input(next_name(), {dtype, std::move(shape)});
    fills_.push_back({value, [=](std::mt19937& random) {
                        return std::uniform_real_distribution<double>(low, high)(random);
                      }});
    return value;
  }
  // Away from 0 by at least 0.05: for ops with a kink there.
  Value apart(Shape shape) {
    const Value value = graph.input(next_name(), {dtype, std::move(shape)});
    fills_.push_back({value, [](std::mt19937& random) {
                        const double x = std::uniform_real_distribution<double>(-1, 1)(random);
                        return x + std::copysign(0.05, x);
                      }});
    differentiable.push_back(value);
    return value;
  }
  Value state(Shape shape, double low = -1, double high = 1) {
    const std::string name = next_name();
    const Value value = graph.state({.name = name, .type = {dtype, std::move(shape)}});
    fills_.push_back({value, [=](std::mt19937& random) {
                        return std::uniform_real_distribution<double>(low, high)(random);
                      }});
    return value;
  }
  Value scalar(double x) { return fixed({}, x, x); }
  Value integer(std::int64_t x) { return integers({}, x, x); }
  // Integers in [low, high].
  Value integers(Shape shape, std::int64_t low, std::int64_t high, DType type = DType::i64) {
    const Value value = graph.input(next_name(), {type, std::move(shape)});
    fills_.push_back({value, [=](std::mt19937& random) {
                        return static_cast<double>(
                            std::uniform_int_distribution<std::int64_t>(low, high)(random));
                      }});
    return value;
  }
  // A state of whole numbers in f32, whatever the graph's type.
  Value counts(std::int64_t rows) {
    const Value value = graph.state({.name = next_name(), .type = {DType::f32, Shape{rows}}});
    fills_.push_back({value, [](std::mt19937& random) {
                        return static_cast<double>(std::uniform_int_distribution(0, 6)(random));
                      }});
    return value;
  }
  // Exactly these.
  Value list(const std::vector<std::int64_t>& values, DType type = DType::i64) {
    const Value value =
        graph.input(next_name(), {type, Shape{static_cast<std::int64_t>(values.size())}});
    fills_.push_back({value, [values, i = std::size_t{0}](std::mt19937&) mutable {
                        return static_cast<double>(values[i++ % values.size()]);
                      }});
    return value;
  }

  // The same numbers for the same row, in f32 and in f64 up to rounding.
  void fill(Interpreter& interpreter) const {
    std::mt19937 random(12345);
    for (Fill fill : fills_) {
      const auto put = [&]<class T>(T) {
        for (T& x : interpreter.data<T>(fill.value)) x = static_cast<T>(fill.draw(random));
      };
      switch (fill.value.dtype()) {
        case DType::u8:
          put(std::uint8_t{});
          break;
        case DType::i32:
          put(std::int32_t{});
          break;
        case DType::i64:
          put(std::int64_t{});
          break;
        case DType::f64:
          put(double{});
          break;
        default:
          put(float{});
      }
    }
  }

  DType dtype;
  Graph graph;
  std::vector<Value> differentiable;

 private:
  struct Fill {
    Value value;
    std::function<double(std::mt19937&)> draw;
  };
  std::string next_name() const { return "leaf" + std::to_string(fills_.size()); }
  std::vector<Fill> fills_;
};

struct OpCase {
  std::string name;
  // Emits the ops and returns the outputs that a gradient starts from; none: no gradient.
  std::function<std::vector<Value>(CaseGraph&)> build;
  // Finite differences: how far apart, and how close they must come (of the largest gradient).
  double difference = 1e-5, closeness = 1e-6;
  std::vector<DType> dtypes = {DType::f32, DType::f64};
};

const std::vector<OpCase>& op_cases();
std::vector<OpCase> fused_op_cases();  // of them those of fused ops

// How rows are called in tests' names and output.
inline std::ostream& operator<<(std::ostream& out, const OpCase& row) {
  return out << row.name;
}
inline std::string test_name(const testing::TestParamInfo<OpCase>& info) {
  std::string name = info.param.name;
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

// A row's graph with a scalar loss (the outputs times random numbers, summed) and its gradients.
struct BuiltCase {
  CaseGraph leaves;
  Value loss;
  std::int32_t forward_end = 0;  // nodes before: what the loss needs
  std::vector<Value> gradients;  // of leaves.differentiable; may be invalid

  BuiltCase(const OpCase& row, DType dtype) : leaves(dtype) {
    for (const Value& output : row.build(leaves)) {
      const Value weights = ops::cast(leaves.fixed(output.shape()), output.dtype());
      const Value part = ops::cast(ops::sum(ops::mul(output, weights)), dtype);
      loss = loss.valid() ? ops::add(loss, part) : part;
    }
    forward_end = leaves.graph.size();
    if (!loss.valid()) return;
    const Seed seed{loss, leaves.scalar(1)};
    gradients = ftrain::gradients(leaves.graph, {&seed, 1}, leaves.differentiable);
  }
};

}  // namespace ftrain::cpu
