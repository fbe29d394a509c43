// The end of a step: the gradient's norm and the update of dense parameters.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/update.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/tiles.h"

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

double squared_sum(const float* x, std::int64_t count) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = hn::Zero(d), c = hn::Zero(d), e = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    const auto va = hn::PromoteTo(d, hn::LoadU(narrow, x + i));
    const auto vb = hn::PromoteTo(d, hn::LoadU(narrow, x + i + lanes));
    const auto vc = hn::PromoteTo(d, hn::LoadU(narrow, x + i + 2 * lanes));
    const auto ve = hn::PromoteTo(d, hn::LoadU(narrow, x + i + 3 * lanes));
    a = hn::MulAdd(va, va, a);
    b = hn::MulAdd(vb, vb, b);
    c = hn::MulAdd(vc, vc, c);
    e = hn::MulAdd(ve, ve, e);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
  for (; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "core/compile/merge_updates.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/ops.h"

namespace ftrain::cpu {
namespace {

HWY_EXPORT(squared_sum);

// Elements of a chunk; the split depends on the shapes alone, so sums do not depend on threads.
constexpr std::int64_t chunk = 16384;

// A part of one of many tensors.
struct Chunk {
  std::size_t tensor;
  std::int64_t first, count;
};

void cut(std::size_t tensor, std::int64_t elements, std::vector<Chunk>& chunks) {
  for (std::int64_t first = 0; first < elements; first += chunk) {
    chunks.push_back({tensor, first, std::min(chunk, elements - first)});
  }
}

class SquaredNorm : public BoundKernel {
 public:
  SquaredNorm(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment), sum_(FTRAIN_SIMD(squared_sum, environment.isa)) {
    for (std::size_t tensor = 0; tensor < node.inputs.size(); ++tensor) {
      cut(tensor, node.input(tensor).shape.elements(), chunks_);
    }
  }

  std::size_t scratch_bytes() const override { return chunks_.size() * sizeof(double); }

  void launch() override {
    double* const sums = static_cast<double*>(scratch_);
    parallel_for(static_cast<std::int64_t>(chunks_.size()), threads(), [&](std::int64_t i) {
      const Chunk& c = chunks_[static_cast<std::size_t>(i)];
      sums[i] = sum_(input(c.tensor) + c.first, c.count);
    });
    double total = 0;
    for (std::size_t i = 0; i < chunks_.size(); ++i) total += sums[i];
    *output(0) = static_cast<float>(total);
  }

 private:
  double (*sum_)(const float*, std::int64_t);
  std::vector<Chunk> chunks_;
};

// optimizer_update's inputs: see update_operand; those of many: see ManyUpdates. The optimizer's
// own function does the arithmetic; here it is spread over threads.
class OptimizerUpdate : public BoundKernel {
 public:
  static constexpr std::size_t most_slots = 8;

  OptimizerUpdate(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        update_(node.attributes.payload_pointer("update")),
        rate_factor_(node.attributes.number("rate_factor")),
        decay_(node.attributes.number("decay")) {
    if (node.op == &ops::def::optimizer_update) {
      namespace at = update_operand;
      slots_ = node.inputs.size() - at::first_slot;
      scalars_at_ = {at::rate, at::ok, at::coefficient, at::step};
      tensors_.push_back({at::parameter, at::gradient, at::first_slot});
      cut(0, node.input(0).shape.elements(), chunks_);
    } else {
      const ManyUpdates many(node);
      slots_ = many.slots;
      scalars_at_ = {many.rate, many.ok, many.coefficient, many.step};
      for (std::size_t t = 0; t < many.tensors; ++t) {
        const std::size_t parameter = many.parameter(t);
        tensors_.push_back({parameter, parameter + 1, parameter + 2});
        cut(t, node.input(parameter).shape.elements(), chunks_);
      }
    }
    clipped_ = node.inputs[scalars_at_.coefficient].valid();
    numbered_ = node.inputs[scalars_at_.step].valid();
  }

  void launch() override {
    if (*input(scalars_at_.ok) == 0) return;
    const auto& update = static_cast<const Update&>(*update_);
    UpdateScalars scalars;
    scalars.rate = *input(scalars_at_.rate) * rate_factor_;
    scalars.decay = decay_;
    if (clipped_) scalars.coefficient = *input(scalars_at_.coefficient);
    if (numbered_) scalars.step = 1 + *static_cast<const std::int64_t*>(inputs_[scalars_at_.step]);
    parallel_for(static_cast<std::int64_t>(chunks_.size()), threads(), [&](std::int64_t i) {
      const Chunk& c = chunks_[static_cast<std::size_t>(i)];
      const Tensor& tensor = tensors_[c.tensor];
      float* slots[most_slots];
      for (std::size_t s = 0; s < slots_; ++s) {
        slots[s] = static_cast<float*>(inputs_[tensor.slots + s]) + c.first;
      }
      update.f32(update.functor, static_cast<float*>(inputs_[tensor.parameter]) + c.first, slots,
                 input(tensor.gradient) + c.first, c.count, scalars);
    });
  }

 private:
  // Which inputs.
  struct Tensor {
    std::size_t parameter, gradient, slots;
  };
  struct Scalars {
    std::size_t rate, ok, coefficient, step;
  };
  std::shared_ptr<const Payload> update_;
  std::size_t slots_ = 0;
  Scalars scalars_at_{};
  std::vector<Tensor> tensors_;
  std::vector<Chunk> chunks_;
  bool clipped_ = false, numbered_ = false;
  double rate_factor_, decay_;
};

std::string refuse_norm(const Node& node, const KernelEnvironment&) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.input(i).dtype != DType::f32) return "only f32";
  }
  return {};
}

std::string refuse_update(const Node& node, const KernelEnvironment&) {
  namespace at = update_operand;
  if (node.inputs.size() > at::first_slot + OptimizerUpdate::most_slots) {
    return "too many slots";
  }
  const TensorType& parameter = node.input(at::parameter);
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid() || i == at::step) continue;
    if (node.input(i).dtype != DType::f32) return "only f32";
    if (at::is_tensor(i) && node.input(i).layout != parameter.layout) {
      return "operands in different layouts";
    }
  }
  return {};
}

std::string refuse_many(const Node& node, const KernelEnvironment&) {
  const ManyUpdates many(node);
  if (many.copies) return "keeps no copies";
  return many.slots > OptimizerUpdate::most_slots ? "too many slots" : "";
}

}  // namespace

void add_update_kernels(KernelList& list) {
  list.add({"squared_norm", "simd", 10, refuse_norm, make_kernel<SquaredNorm>});
  list.add({"optimizer_update", "simd", 10, refuse_update, make_kernel<OptimizerUpdate>});
  list.add({"optimizer_update_many", "simd", 10, refuse_many, make_kernel<OptimizerUpdate>});
}

}  // namespace ftrain::cpu
#endif
