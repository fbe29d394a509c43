#include "tests/cuda/shape_cases.h"

#include "core/compile/layouts.h"
#include "plugins/devices/cuda/device/layout.h"
#include "plugins/devices/cuda/rewrite/merge_running.h"

namespace ftrain::cuda {
namespace {

using cpu::CaseGraph;
using cpu::OpCase;
using Outputs = std::vector<Value>;

OpCase conv(const std::string& name, Shape x, Shape weight, ops::Conv2d options) {
  return {"conv2d " + name,
          [=](CaseGraph& g) { return Outputs{ops::conv2d(g.real(x), g.real(weight), options)}; }};
}

OpCase norm(const std::string& name, Shape shape, std::int64_t groups) {
  return {"batch_norm " + name, [=](CaseGraph& g) {
            const Value x = g.real(shape, -1, 3);
            const Shape channels{shape[1]};
            return Outputs{ops::batch_norm(x, ops::batch_moments(x, groups),
                                           g.real(channels, 0.5, 1.5), g.real(channels))};
          }};
}

// More norms than a launch takes, of unequal widths, with groups and without.
OpCase running_statistics(int norms) {
  return {"update_running_many of " + std::to_string(norms), [=](CaseGraph& g) {
            std::vector<RunningUpdate> updates;
            for (int n = 0; n < norms; ++n) {
              const std::int64_t channels = n % 3 == 0 ? 130 : 1 + n, groups = 1 + n % 2;
              updates.push_back({g.state({channels}),
                                 g.state({channels}, 0.5, 2),
                                 {g.fixed({groups, channels}), g.fixed({groups, channels}, 0.5, 2)},
                                 n});
            }
            update_running_many(updates, g.scalar(1), 0.1);
            return Outputs{};
          }};
}

OpCase reorder(const std::string& name, Shape shape) {
  return {
      "reorder " + name, [=](CaseGraph& g) {
        const Value x = g.fixed(shape);
        const Value last = g.graph.emit(reorder_op, {x}, {{"layout", std::string(channels_last)}});
        g.graph.emit(reorder_op, {last}, {{"layout", std::string(row_major)}});
        return Outputs{};
      }};
}

}  // namespace

std::vector<OpCase> shape_cases() {
  return {
      conv("depthwise of two blocks", {2, 136, 5, 7}, {136, 1, 3, 3}, {1, 1, 136}),
      conv("depthwise of two blocks, stride 2", {2, 136, 5, 6}, {136, 1, 3, 3}, {2, 1, 136}),
      conv("pairs, stride 2", {2, 12, 6, 5}, {12, 2, 3, 3}, {2, 1, 6}),
      conv("pairs without padding", {2, 8, 4, 4}, {8, 2, 3, 3}, {1, 0, 4}),
      conv("pairs over the whole image", {1, 8, 7, 7}, {8, 2, 7, 7}, {1, 0, 4}),
      conv("depthwise 5x5, stride 2", {2, 8, 5, 5}, {8, 1, 5, 5}, {2, 2, 8}),
      conv("depthwise 3x3, stride 3", {2, 8, 9, 9}, {8, 1, 3, 3}, {3, 0, 8}),
      conv("depthwise of odd channels", {2, 6, 5, 5}, {6, 1, 3, 3}, {1, 1, 6}),
      conv("depthwise of one position", {1, 8, 1, 1}, {8, 1, 3, 3}, {1, 1, 8}),
      conv("depthwise with more padding", {2, 16, 3, 3}, {16, 1, 3, 3}, {2, 2, 16}),
      norm("of many rows in groups", {8, 136, 5, 5}, 2),
      norm("of many channels", {6, 528, 2, 2}, 1),
      norm("of many samples and few channels", {70, 3, 5, 5}, 1),
      norm("of long vectors", {90, 264}, 3),
      norm("of large planes", {2, 8, 17, 16}, 1),
      reorder("of images", {2, 5, 6, 7}),
      reorder("of several tiles", {2, 40, 9, 5}),
      running_statistics(2),
      running_statistics(59),
      // The variance is a hundred thousandth of the mean's square, and must not drown in it.
      {"batch_moments far from 0",
       [](CaseGraph& g) {
         ops::batch_moments(g.fixed({12, 8, 6, 6}, 100, 101));
         return Outputs{};
       }},
  };
}

}  // namespace ftrain::cuda
