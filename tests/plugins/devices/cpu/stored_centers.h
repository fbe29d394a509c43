// A whole class-center step on one rank, for tests of where and in what class centers are stored.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ftrain/base/philox.h"
#include "ftrain/ops.h"
#include "tests/plugins/devices/cpu/graph_runner.h"

namespace ftrain::cpu {

struct StoredCase {
  std::int64_t batch = 21, width = 37, classes = 301;
  bool bf16 = false, host = false;
  bool sampled = false, all_rows = false, keep = false, slots = true, counted = false;
  std::int64_t first = 3;  // the global number of row 0
  float ok = 1;

  static constexpr std::uint64_t seed = 2048;
  static constexpr std::int64_t step = std::int64_t{5} << 32 | 7;

  std::string text() const {
    return std::string(bf16 ? "bf16" : "f32") + (host ? " host" : "") + " width " +
           std::to_string(width) + (sampled ? " sampled" : "") + (all_rows ? " all rows" : "") +
           (keep ? " kept" : "") + (slots ? "" : " without slots") + (counted ? " counted" : "");
  }
};

using StoredResults = std::map<std::string, std::vector<float>>;

// `only`: a kernel's name, or empty for the best. Class centers and slots begin with values that
// bf16 has.
inline StoredResults run_stored(const StoredCase& c, const KernelList& kernels,
                                const KernelEnvironment& environment, const std::string& only,
                                std::shared_ptr<const Payload> margin,
                                std::shared_ptr<const Payload> update,
                                const std::function<void(Kernel&)>& launch = {}) {
  Graph graph;
  const Value features = graph.input("features", {DType::f32, {c.batch, c.width}});
  const Value norms = graph.input("norms", {DType::f32, {c.batch}});
  const Value labels = graph.input("labels", {DType::i64, {c.batch}});
  const auto state = [&](const char* name) {
    return graph.state({.name = name,
                        .type = {c.bf16 ? DType::bf16 : DType::f32, {c.classes, c.width}},
                        .memory = c.host ? StateSpec::Memory::host : StateSpec::Memory::device});
  };
  const Value weight = state("weight");
  std::vector<Value> slots;
  if (c.slots) slots.push_back(state("slot"));
  Value row_steps;
  if (c.counted) row_steps = graph.state({.name = "steps", .type = {DType::f32, {c.classes}}});
  const Value rate = graph.input("rate", {DType::f32, {}});
  const Value ok = graph.input("ok", {DType::f32, {}});
  const Value step = graph.input("step", {DType::i64, {}});
  std::vector<std::int32_t> chosen;
  for (std::int64_t row = 0; row < c.classes; row += 1 + row % 3) {
    chosen.push_back(static_cast<std::int32_t>(row));
  }
  chosen.insert(chosen.end(), 5, -1);
  Value rows;
  if (c.sampled) {
    rows = graph.input("rows", {DType::i32, {static_cast<std::int64_t>(chosen.size())}});
  }
  const ops::ClassCenters centers{std::move(margin), c.first, 1.0 / static_cast<double>(c.batch),
                                  c.keep};
  const Value target = ops::target_cosine(features, labels, weight, centers);
  const ops::ClassStats stats =
      ops::class_center_forward(features, norms, labels, weight, target, rows, centers);
  const ops::MarginLoss loss =
      ops::margin_loss(ops::reshape(stats.stats, {1, c.batch, 2}), norms, target, centers);
  const ops::ClassGradients dense = ops::class_center_backward(
      features, norms, labels, weight, target, loss.log_sum, stats, rows, centers);
  const Value updated = ops::class_center_update(
      features, norms, labels, weight, target, loss.log_sum, stats, rows, slots, rate, ok, centers,
      {.update = std::move(update),
       .rate_factor = 1.5,
       .decay = 0.01,
       .all_rows = c.all_rows,
       .earlier = dense.weight,
       .step = step,
       .seed = c.seed,
       .row_steps = row_steps});

  GraphRunner runner(graph, kernels, environment, only);
  if (launch) runner.launch = launch;
  const auto count = static_cast<std::size_t>(c.classes * c.width);
  std::vector<float> unit = random_values(static_cast<std::size_t>(c.batch * c.width), 1);
  for (float& x : unit) x /= std::sqrt(static_cast<float>(c.width));
  runner.set(features, unit);
  runner.set(norms, random_values(static_cast<std::size_t>(c.batch), 2, 10, 1));
  std::vector<std::int64_t> own;
  for (std::int64_t b = 0; b < c.batch; ++b) own.push_back(c.first + b * b % c.classes);
  own[0] = c.first - 1;  // another rank's
  runner.set_bytes(labels, own.data());
  const auto stored = [&](std::uint32_t seed, float deviation) {
    std::vector<float> values = random_values(count, seed, 0, deviation);
    for (float& x : values) x = to_f32(to_bf16(x));
    return values;
  };
  runner.set(weight, stored(3, 0.3f));
  if (c.slots) runner.set(slots[0], stored(4, 0.01f));
  if (c.counted) {
    std::vector<float> counts(static_cast<std::size_t>(c.classes));
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<float>(i % 5);
    runner.set(row_steps, counts);
  }
  runner.set(rate, {0.1f});
  runner.set(ok, {c.ok});
  runner.set_bytes(step, &c.step);
  if (c.sampled) runner.set_bytes(rows, chosen.data());
  runner.run();
  StoredResults results{{"target", runner.get(target)},
                        {"stats", runner.get(stats.stats)},
                        {"inverse", runner.get(stats.inverse_norms)},
                        {"loss", runner.get(loss.loss)},
                        {"dfeatures", runner.get(dense.features)},
                        {"dweight", runner.get(dense.weight)},
                        {"dfeatures of the update", runner.get(updated)},
                        {"weight", runner.get(weight)}};
  if (c.keep) results["cosines"] = runner.get(stats.cosines);
  if (c.slots) results["slot"] = runner.get(slots[0]);
  if (c.counted) results["steps"] = runner.get(row_steps);
  return results;
}

// What the f32 results of an update become in bf16: up where the dropped half and a number of
// (seed, tensor, step, global row, column) have 2^16 together.
inline std::vector<float> rounded(const StoredCase& c, std::vector<float> values,
                                  std::uint64_t tensor) {
  const std::uint64_t key = mix64(mix64(c.seed, name_hash("class_center_update")), tensor);
  const auto width = static_cast<std::size_t>(c.width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint64_t row = static_cast<std::uint64_t>(c.first) + i / width, column = i % width;
    const Philox draw =
        Philox::at(key, static_cast<std::uint64_t>(c.step), row * ((width + 7) / 8) + column / 8);
    const std::uint32_t number = draw.word[column % 8 / 2] >> (16 * (column % 2)) & 0xffffu;
    const auto bits = std::bit_cast<std::uint32_t>(values[i]);
    const std::uint32_t up = (bits & 0xffffu) + number >= 0x10000u ? 0x10000u : 0u;
    values[i] = std::bit_cast<float>((bits & 0xffff0000u) + up);
  }
  return values;
}

// Everything is as with class centers in f32, to the bit, but for the rounding of the update.
inline void expect_rounded_f32(StoredCase c, const KernelList& kernels,
                               const KernelEnvironment& environment, const std::string& only,
                               const std::shared_ptr<const Payload>& margin,
                               const std::shared_ptr<const Payload>& update) {
  c.bf16 = false;
  StoredResults want = run_stored(c, kernels, environment, only, margin, update);
  c.bf16 = true;
  SCOPED_TRACE(c.text() + " " + only);
  if (c.ok != 0) {
    want["weight"] = rounded(c, want["weight"], 0);
    if (c.slots) want["slot"] = rounded(c, want["slot"], 1);
  }
  const StoredResults got = run_stored(c, kernels, environment, only, margin, update);
  for (const auto& [name, values] : want) EXPECT_EQ(got.at(name), values) << name;
}

// Of every way in which rows are walked and updated.
inline std::vector<StoredCase> stored_cases() {
  std::vector<StoredCase> cases;
  for (const bool sampled : {false, true}) {
    cases.push_back({.sampled = sampled});
    cases.push_back({.width = 64, .sampled = sampled, .keep = true});
  }
  cases.push_back({.sampled = true, .all_rows = true});
  cases.push_back({.width = 40, .slots = false});
  cases.push_back({.classes = 5});
  cases.push_back({.sampled = true, .all_rows = true, .ok = 0});
  cases.push_back({.counted = true});
  cases.push_back({.width = 64, .sampled = true, .counted = true});
  cases.push_back({.sampled = true, .all_rows = true, .counted = true});
  cases.push_back({.sampled = true, .all_rows = true, .counted = true, .ok = 0});
  return cases;
}

}  // namespace ftrain::cpu
