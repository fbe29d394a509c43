#include "ftrain/model/parallelism.h"

#include <algorithm>
#include <stdexcept>

namespace ftrain {

Parallelism::~Parallelism() = default;

void Parallelism::configure(Keys& keys) {
  keys.bind_either("batch_norm", batch_norm,
                   "batch-norm statistics: rank, global, or the number of samples in a group",
                   {"\"rank\", \"global\" or a number of samples",
                    [](const Setting& value) {
                      if (const auto* text = std::get_if<std::string>(&value)) {
                        return *text == "rank" || *text == "global";
                      }
                      const auto* number = std::get_if<std::int64_t>(&value);
                      return number != nullptr && *number > 0;
                    },
                    {"rank", "global"}});
  keys.bind(
      "bucket", bucket,
      "MiB of gradients that are summed over ranks at once, while the backward walk goes on; fewer "
      "towards its end",
      above(0));
  keys.bind("features", features, "what features travel in between ranks",
            one_of(std::vector<std::string>{"fp32", "bf16"}));
  keys.bind("centers", centers_precision,
            "what class centers and their momentum are stored in; bf16 is rounded stochastically",
            one_of(std::vector<std::string>{"fp32", "bf16"}));
  keys.bind("centers_memory", centers_memory,
            "where class centers and their momentum are kept: the device's memory, or the host's, "
            "whence rows are fetched as they are needed",
            one_of(std::vector<std::string>{"device", "host"}));
}

HeadSignals Parallelism::signals(const StepBuild&, Value, Value) const {
  throw std::logic_error("[parallelism]: this strategy does not serve heads with batch statistics");
}

std::vector<Value> Parallelism::reduce(const StepBuild& build, std::vector<Value> gradients) const {
  // Few collectives, and the first can go while the backward walk continues. What is summed last
  // has nothing to go beside: the closer to the end, the smaller the bucket.
  constexpr std::size_t smallest = std::size_t{1} << 20;
  const auto largest = static_cast<std::size_t>(this->bucket * (1 << 20));
  std::size_t left = 0, bytes = 0;
  for (const Value& gradient : gradients) left += gradient.type().bytes();
  std::vector<Value> bucket, reduced;
  const auto flush = [&] {
    for (const Value& value : ops::all_reduce_sum(bucket, build.ranks)) reduced.push_back(value);
    bucket.clear();
    left -= bytes;
    bytes = 0;
  };
  for (const Value& gradient : gradients) {
    bucket.push_back(gradient);
    bytes += gradient.type().bytes();
    if (bytes >= std::min(largest, std::max(smallest, left / 4))) flush();
  }
  flush();
  return reduced;
}

Parallelism::Shard Parallelism::shard(std::int64_t classes, std::int64_t rank, std::int64_t ranks) {
  const std::int64_t each = classes / ranks, more = classes % ranks;
  return {each * rank + std::min(rank, more), each + (rank < more ? 1 : 0)};
}

Parallelism::Centers Parallelism::centers(const StepBuild& build, Value embedding,
                                          Shard shard) const {
  const bool bf16 = centers_precision == "bf16";
  const Shape shape{shard.count, embedding.shape()[1]};
  StateSpec spec{
      .role = StateSpec::Role::parameter,
      .name = "centers.weight",
      .type = {bf16 ? DType::bf16 : embedding.dtype(), shape},
      .initializer = {Initializer::Kind::normal, 0, 0.01},
      .memory = centers_memory == "host" ? StateSpec::Memory::host : StateSpec::Memory::device,
      .trainable = true,
      .first_row = shard.first,
      .rows = build.classes};
  // Every part of a step works on the same.
  const auto state = [&] {
    const Value existing = build.graph.find_state(spec.name);
    return existing.valid() ? existing : build.graph.state(spec);
  };
  Centers centers;
  centers.weight = state();
  spec.role = StateSpec::Role::slot;
  spec.initializer = {};
  for (const std::string& slot : build.optimizer.slots()) {
    spec.name = "centers.weight." + slot;
    centers.slots.push_back(state());
  }
  if (build.optimizer.counts_rows()) {
    spec.name = "centers.weight.step";
    spec.type = {DType::f32, Shape{shard.count}};
    spec.memory = StateSpec::Memory::device;
    centers.row_steps = state();
  }
  return centers;
}

ops::RowUpdate Parallelism::row_update(const StepBuild& build, Value row_steps) const {
  const TensorPolicy policy = build.optimizer.center_policy();
  return {.update = build.optimizer.update(),
          .rate_factor = policy.rate_factor,
          .decay = policy.decay,
          .step = build.step,
          .seed = build.seed,
          .row_steps = row_steps};
}

bool Parallelism::keeps_cosines(std::int64_t walked, std::int64_t batch, Value weight) {
  constexpr std::size_t next_to_nothing = std::size_t{8} << 20;
  const DType cosines = weight.dtype() == DType::bf16 ? DType::f32 : weight.dtype();
  const std::size_t bytes = TensorType{cosines, Shape{walked, batch}}.bytes();
  return bytes <= std::max(next_to_nothing, weight.type().bytes() / 8);
}

}  // namespace ftrain
