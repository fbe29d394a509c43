// The kernels for the CPU, over elements as they lie: in f32 and, for gradient checks, in f64.
#include <memory>
#include <span>

#include "ftrain/cpu/parallel.h"
#include "gelu.h"

namespace gelu {
namespace {

using ftrain::DType;
using ftrain::Kernel;
using ftrain::KernelEnvironment;
using ftrain::Node;

// y[i] = Formula::of(inputs[i]...), by all threads of the rank.
template <class T, template <class> class Formula, int count>
class Elementwise final : public Kernel {
 public:
  Elementwise(std::int64_t elements, int threads) : elements_(elements), threads_(threads) {}
  // An element of the output needs the same element of x alone, so it may take x's place.
  int overwrites() const override { return count - 1; }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    for (int i = 0; i < count; ++i) {
      inputs_[i] = static_cast<const T*>(inputs[static_cast<std::size_t>(i)]);
    }
    output_ = static_cast<T*>(outputs[0]);
  }
  void launch() override {
    ftrain::cpu::parallel_runs(elements_, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        if constexpr (count == 1)
          output_[i] = Formula<T>::of(inputs_[0][i]);
        else
          output_[i] = Formula<T>::of(inputs_[0][i], inputs_[1][i]);
      }
    });
  }

 private:
  const std::int64_t elements_;
  const int threads_;
  const T* inputs_[count] = {};
  T* output_ = nullptr;
};

std::string refuse(const Node& node, const KernelEnvironment&) {
  const DType dtype = node.outputs[0].dtype;
  if (dtype != DType::f32 && dtype != DType::f64) return "is for f32 and f64 only";
  return refuse_mixed(node);
}

template <template <class> class Formula, int count>
std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  const std::int64_t elements = node.outputs[0].shape.elements();
  if (node.outputs[0].dtype == DType::f64) {
    return std::make_unique<Elementwise<double, Formula, count>>(elements, environment.threads);
  }
  return std::make_unique<Elementwise<float, Formula, count>>(elements, environment.threads);
}

}  // namespace

void add_cpu_kernels(ftrain::Registry& registry) {
  registry.add_kernel("cpu", {.op = "gelu",
                              .name = "threads",
                              .priority = 10,
                              .refuse = refuse,
                              .make = make<Forward, 1>});
  registry.add_kernel("cpu", {.op = "gelu_grad",
                              .name = "threads",
                              .priority = 10,
                              .refuse = refuse,
                              .make = make<Backward, 2>});
}

}  // namespace gelu
