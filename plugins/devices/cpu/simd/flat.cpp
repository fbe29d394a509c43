// Element by element over flat runs of f32 or bf16, whatever the layout; and from one to the other.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/flat.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/lanes-inl.h"
#include "plugins/devices/cpu/simd/tiles.h"

#ifndef FTRAIN_SIMD_FLAT_RUN
#define FTRAIN_SIMD_FLAT_RUN
namespace ftrain::cpu {
enum class FlatOp { add, mul, scale, relu, relu_grad, copy };
struct FlatRun {
  const void *a = nullptr, *b = nullptr;
  void* y = nullptr;
  float factor = 0;
  std::int64_t first = 0, count = 0;  // elements
  FlatOp op = FlatOp::add;
  bool bf16 = false;  // what is read; a copy writes the other
  bool stream = false;
};
}  // namespace ftrain::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

template <FlatOp op, class T, class D>
HWY_INLINE hn::Vec<D> combine(D d, const T* a, const T* b, float factor) {
  const auto v = load_lanes(d, a);
  if constexpr (op == FlatOp::copy) return v;
  if constexpr (op == FlatOp::add) return hn::Add(v, load_lanes(d, b));
  if constexpr (op == FlatOp::mul) return hn::Mul(v, load_lanes(d, b));
  if constexpr (op == FlatOp::scale) return hn::Mul(v, hn::Set(d, factor));
  if constexpr (op == FlatOp::relu) return hn::Max(v, hn::Zero(d));
  if constexpr (op == FlatOp::relu_grad) {
    return hn::IfThenElseZero(hn::Gt(load_lanes(d, b), hn::Zero(d)), v);
  }
}

template <FlatOp op, bool stream, class From, class To>
void combine_run(const FlatRun& r) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const From* const a = static_cast<const From*>(r.a) + r.first;
  const From* const b = static_cast<const From*>(r.b) + r.first;
  To* const y = static_cast<To*>(r.y) + r.first;
  std::int64_t i = 0;
  for (; i + lanes <= r.count; i += lanes) {
    const auto v = combine<op>(d, a + i, b + i, r.factor);
    if constexpr (stream) {
      stream_lanes(v, d, y + i);
    } else {
      store_lanes(v, d, y + i);
    }
  }
  for (; i < r.count; ++i) store_lanes(combine<op>(one, a + i, b + i, r.factor), one, y + i);
  if constexpr (stream) hwy::FlushStream();
}

template <FlatOp op, class From, class To>
void combine_types(const FlatRun& r) {
  r.stream ? combine_run<op, true, From, To>(r) : combine_run<op, false, From, To>(r);
}

template <FlatOp op>
void combine_as(const FlatRun& r) {
  r.bf16 ? combine_types<op, BF16, BF16>(r) : combine_types<op, float, float>(r);
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
    case FlatOp::copy:
      return r.bf16 ? combine_types<FlatOp::copy, BF16, float>(r)
                    : combine_types<FlatOp::copy, float, BF16>(r);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "ftrain/graph/opdef.h"

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
          : name == "cast"      ? FlatOp::copy
                                : FlatOp::scale;
    bf16_ = node.input(0).dtype == DType::bf16;
    bytes_ = node.outputs[0].bytes();
    scale_by_ = name == "scale_by";
    if (name == "scale") factor_ = static_cast<float>(node.attributes.number("factor"));
  }

  int overwrites() const override { return op_ == FlatOp::copy ? -1 : 0; }

  void launch() override {
    const bool stream = writes_around_caches(bytes_);
    const bool two = op_ == FlatOp::add || op_ == FlatOp::mul || op_ == FlatOp::relu_grad;
    const float factor = scale_by_ ? input(1)[0] : factor_;
    parallel_for((count_ + chunk - 1) / chunk, threads(), [&](std::int64_t i) {
      FlatRun r;
      r.a = inputs_[0];
      r.b = inputs_[two ? 1 : 0];
      r.y = outputs_[0];
      r.factor = factor;
      r.first = i * chunk;
      r.count = std::min(chunk, count_ - r.first);
      r.op = op_;
      r.bf16 = bf16_;
      r.stream = stream;
      run_(r);
    });
  }

 private:
  void (*run_)(const FlatRun&);
  std::int64_t count_;
  FlatOp op_;
  std::size_t bytes_ = 0;
  bool scale_by_ = false, bf16_ = false;
  float factor_ = 0;
};

std::string refuse_one(const Node& node, const KernelEnvironment&) {
  return refuse_flat(node, {0});
}
std::string refuse_two(const Node& node, const KernelEnvironment&) {
  return refuse_flat(node, {0, 1});
}

std::string refuse_cast(const Node& node, const KernelEnvironment&) {
  const TensorType &from = node.input(0), &to = node.outputs[0];
  const auto is = [](DType a, DType b) { return a == DType::f32 && b == DType::bf16; };
  if (!is(from.dtype, to.dtype) && !is(to.dtype, from.dtype)) return "only f32 to bf16 and back";
  if (from.layout != to.layout) return "result in another layout";
  return {};
}

}  // namespace

void add_flat_kernels(KernelList& list) {
  for (const char* op : {"add", "mul", "relu_grad"}) {
    list.add({op, "simd", 10, refuse_two, make_kernel<Flat>});
  }
  for (const char* op : {"scale", "scale_by", "relu"}) {
    list.add({op, "simd", 10, refuse_one, make_kernel<Flat>});
  }
  list.add({"cast", "simd", 10, refuse_cast, make_kernel<Flat>});
}

}  // namespace ftrain::cpu
#endif
