// Element by element over flat runs of f32, whatever the layout.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/flat.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/tiles.h"

#ifndef FTRAIN_SIMD_FLAT_RUN
#define FTRAIN_SIMD_FLAT_RUN
namespace ftrain::cpu {
enum class FlatOp { add, mul, scale, relu, relu_grad };
struct FlatRun {
  const float *a = nullptr, *b = nullptr;
  float* y = nullptr;
  float factor = 0;
  std::int64_t count = 0;
  FlatOp op = FlatOp::add;
  bool stream = false;
};
}  // namespace ftrain::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <FlatOp op, class D>
HWY_INLINE hn::Vec<D> combine(D d, const float* a, const float* b, float factor) {
  const auto v = hn::LoadU(d, a);
  if constexpr (op == FlatOp::add) return hn::Add(v, hn::LoadU(d, b));
  if constexpr (op == FlatOp::mul) return hn::Mul(v, hn::LoadU(d, b));
  if constexpr (op == FlatOp::scale) return hn::Mul(v, hn::Set(d, factor));
  if constexpr (op == FlatOp::relu) return hn::Max(v, hn::Zero(d));
  if constexpr (op == FlatOp::relu_grad) {
    return hn::IfThenElseZero(hn::Gt(hn::LoadU(d, b), hn::Zero(d)), v);
  }
}

template <FlatOp op, bool stream>
void combine_run(const FlatRun& r) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= r.count; i += lanes) {
    const auto y = combine<op>(d, r.a + i, r.b + i, r.factor);
    if constexpr (stream) {
      hn::Stream(y, d, r.y + i);
    } else {
      hn::StoreU(y, d, r.y + i);
    }
  }
  for (; i < r.count; ++i) hn::StoreU(combine<op>(one, r.a + i, r.b + i, r.factor), one, r.y + i);
  if constexpr (stream) hwy::FlushStream();
}

template <FlatOp op>
void combine_as(const FlatRun& r) {
  r.stream ? combine_run<op, true>(r) : combine_run<op, false>(r);
}

void flat_run(const FlatRun& r) {
  switch (r.op) {
    case FlatOp::add:
      return combine_as<FlatOp::add>(r);
    case FlatOp::mul:
      return combine_as<FlatOp::mul>(r);
    case FlatOp::scale:
      return combine_as<FlatOp::scale>(r);
    case FlatOp::relu:
      return combine_as<FlatOp::relu>(r);
    case FlatOp::relu_grad:
      return combine_as<FlatOp::relu_grad>(r);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "core/graph/opdef.h"

namespace ftrain::cpu {
namespace {

HWY_EXPORT(flat_run);

constexpr std::int64_t chunk = 16384;

class Flat : public BoundKernel {
 public:
  Flat(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        run_(FTRAIN_SIMD(flat_run, environment.isa)),
        count_(node.outputs[0].shape.elements()) {
    const std::string_view name = node.op->name;
    op_ = name == "add"         ? FlatOp::add
          : name == "mul"       ? FlatOp::mul
          : name == "relu"      ? FlatOp::relu
          : name == "relu_grad" ? FlatOp::relu_grad
                                : FlatOp::scale;
    scale_by_ = name == "scale_by";
    if (name == "scale") factor_ = static_cast<float>(node.attributes.number("factor"));
  }

  int overwrites() const override { return 0; }

  void launch() override {
    const bool stream = writes_around_caches(static_cast<std::size_t>(count_) * sizeof(float));
    const bool two = op_ == FlatOp::add || op_ == FlatOp::mul || op_ == FlatOp::relu_grad;
    const float factor = scale_by_ ? input(1)[0] : factor_;
    parallel_for((count_ + chunk - 1) / chunk, threads(), [&](std::int64_t i) {
      const std::int64_t first = i * chunk;
      FlatRun r;
      r.a = input(0) + first;
      r.b = two ? input(1) + first : r.a;
      r.y = output(0) + first;
      r.factor = factor;
      r.count = std::min(chunk, count_ - first);
      r.op = op_;
      r.stream = stream;
      run_(r);
    });
  }

 private:
  void (*run_)(const FlatRun&);
  std::int64_t count_;
  FlatOp op_;
  bool scale_by_ = false;
  float factor_ = 0;
};

std::string refuse_one(const Node& node, const KernelEnvironment&) {
  return refuse_flat(node, {0});
}
std::string refuse_two(const Node& node, const KernelEnvironment&) {
  return refuse_flat(node, {0, 1});
}

}  // namespace

void add_flat_kernels(KernelList& list) {
  for (const char* op : {"add", "mul", "relu_grad"}) {
    list.add({op, "simd", 10, refuse_two, make_kernel<Flat>});
  }
  for (const char* op : {"scale", "scale_by", "relu"}) {
    list.add({op, "simd", 10, refuse_one, make_kernel<Flat>});
  }
}

}  // namespace ftrain::cpu
#endif
