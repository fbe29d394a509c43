// The class-center kernels of the list: the plain ones, the tiled walks and what goes before them.
#include <cmath>

#include "plugins/devices/cpu/class_center/stored_rows.h"
#include "plugins/devices/cpu/class_center/tiled.h"
#include "plugins/devices/cpu/device/kernels.h"

namespace ftrain::cpu {
namespace {

// The cosines of samples with their own classes: a row for each.
class TargetCosine final : public Kernel {
 public:
  TargetCosine(const Node& node, const KernelEnvironment& environment)
      : dot_(class_center::tile_functions(environment.isa).dot),
        batch_(node.input(0).shape[0]),
        width_(node.input(0).shape[1]),
        classes_(node.input(2).shape[0]),
        first_(node.attributes.integer("first_class")),
        bf16_(node.input(2).dtype == DType::bf16),
        normalized_(node.attributes.payload<Margin>("margin").normalized),
        space_(static_cast<std::size_t>(bf16_ ? width_ : 0)) {}
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void*) override {
    features_ = static_cast<const float*>(inputs[0]);
    labels_ = static_cast<const std::int64_t*>(inputs[1]);
    weight_ = inputs[2];
    cosines_ = static_cast<float*>(outputs[0]);
  }
  void launch() override {
    for (std::int64_t b = 0; b < batch_; ++b) {
      const std::int64_t row = labels_[b] - first_;
      cosines_[b] = 0;
      if (row < 0 || row >= classes_) continue;
      const float* const center = stored_row(weight_, bf16_, row, width_, space_.data());
      const float length = normalized_ ? std::sqrt(dot_(center, center, width_)) : 1.0f;
      cosines_[b] = dot_(features_ + b * width_, center, width_) / std::max(length, 1e-12f);
    }
  }

 private:
  float (*dot_)(const float*, const float*, std::int64_t);
  std::int64_t batch_, width_, classes_, first_;
  bool bf16_, normalized_;
  std::vector<float> space_;
  const float* features_ = nullptr;
  const void* weight_ = nullptr;
  const std::int64_t* labels_ = nullptr;
  float* cosines_ = nullptr;
};

std::string refuse_f64(const Node& node, const KernelEnvironment&) {
  return node.input(0).dtype == DType::f32 ? "" : "only f32";
}

}  // namespace

void add_class_center_kernels(KernelList& list) {
  add_plain_class_center_kernels(list);
  using Environment = const KernelEnvironment&;
  list.add({"target_cosine", "simd", 10, refuse_f64,
            [](const Node& node, Environment e) -> std::unique_ptr<Kernel> {
              return std::make_unique<TargetCosine>(node, e);
            }});
  list.add({"sample_classes", "simd", 10, nullptr, make_sampling});
  list.add({"class_center_forward", "tiled", 10, refuse_f64,
            [](const Node& node, Environment e) { return make_tiled_forward(node, e); }});
  list.add({"class_center_backward", "tiled", 10, refuse_f64,
            [](const Node& node, Environment e) { return make_tiled_backward(node, e, false); }});
  list.add({"class_center_update", "tiled", 10, refuse_f64,
            [](const Node& node, Environment e) { return make_tiled_backward(node, e, true); }});
}

}  // namespace ftrain::cpu
