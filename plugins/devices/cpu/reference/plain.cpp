#include "plugins/devices/cpu/reference/plain.h"

#include <algorithm>

#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/reference/convert.h"

namespace ftrain::cpu {
namespace {

std::vector<TensorType> operands_of(const Node& node) {
  std::vector<TensorType> types = node.outputs;
  for (const Value& input : node.inputs) {
    if (input.valid()) types.push_back(input.type());
  }
  return types;
}

bool has_16_bits(DType stored) {
  return stored == DType::bf16 || stored == DType::f16;
}

DType computed_in(DType stored) {
  return has_16_bits(stored) ? DType::f32 : stored;
}

class Widened final : public Kernel {
 public:
  Widened(const Node& node, std::unique_ptr<Kernel> in_f32) : inner_(std::move(in_f32)) {
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i].valid()) widen(node.input(i), i, inputs_);
    }
    for (std::size_t i = 0; i < node.outputs.size(); ++i) widen(node.outputs[i], i, outputs_);
  }

  std::size_t scratch_bytes() const override { return bytes_ + inner_->scratch_bytes(); }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    const auto piece = [&](std::size_t offset) { return static_cast<char*>(scratch) + offset; };
    std::vector<void*> in(inputs.begin(), inputs.end()), out(outputs.begin(), outputs.end());
    for (Copy& copy : inputs_) {
      copy.stored = std::exchange(in[copy.operand], piece(copy.offset));
      copy.wide = in[copy.operand];
    }
    for (Copy& copy : outputs_) {
      copy.stored = std::exchange(out[copy.operand], piece(copy.offset));
      copy.wide = out[copy.operand];
    }
    inner_->bind(in, out, piece(bytes_));
  }

  void launch() override {
    for (const Copy& c : inputs_) convert(c.stored, c.type, c.wide, DType::f32, c.count);
    inner_->launch();
    for (const Copy& c : outputs_) convert(c.wide, DType::f32, c.stored, c.type, c.count);
  }

 private:
  struct Copy {
    std::size_t operand = 0, offset = 0;
    DType type = DType::bf16;
    std::int64_t count = 0;
    void *stored = nullptr, *wide = nullptr;
  };

  void widen(const TensorType& type, std::size_t operand, std::vector<Copy>& copies) {
    if (!has_16_bits(type.dtype)) return;
    copies.push_back({operand, bytes_, type.dtype, elements(type)});
    bytes_ += (static_cast<std::size_t>(elements(type)) * sizeof(float) + 63) / 64 * 64;
  }

  std::unique_ptr<Kernel> inner_;
  std::vector<Copy> inputs_, outputs_;
  std::size_t bytes_ = 0;
};

}  // namespace

DType computed_in(const Node& node) {
  for (const TensorType& type : operands_of(node)) {
    if (is_floating(type.dtype)) return computed_in(type.dtype);
  }
  return DType::f32;
}

bool has_16_bit_operands(const Node& node) {
  const std::vector<TensorType> types = operands_of(node);
  return std::any_of(types.begin(), types.end(),
                     [](const TensorType& type) { return has_16_bits(type.dtype); });
}

std::unique_ptr<Kernel> widened(const Node& node, std::unique_ptr<Kernel> in_f32) {
  return std::make_unique<Widened>(node, std::move(in_f32));
}

std::string refuse_layouts(const Node& node, const KernelEnvironment&) {
  for (const TensorType& type : operands_of(node)) {
    if (!type.layout.empty()) return "is for row-major tensors only, not " + type.text();
  }
  return {};
}

std::string refuse_plain(const Node& node, const KernelEnvironment& environment) {
  const DType dtype = computed_in(node);
  if (dtype != DType::f32 && dtype != DType::f64) {
    return "computes in f32 and f64 only, not " + std::string(name_of(dtype));
  }
  for (const int i : written_inputs(node)) {
    const DType state = node.input(static_cast<std::size_t>(i)).dtype;
    if (has_16_bits(state)) return "writes no state in " + std::string(name_of(state));
  }
  for (const TensorType& type : operands_of(node)) {
    if (is_floating(type.dtype) && computed_in(type.dtype) != dtype) {
      return "wants one floating type, not both " + std::string(name_of(dtype)) + " and " +
             std::string(name_of(type.dtype));
    }
  }
  return refuse_layouts(node, environment);
}

void add_reference_kernels(KernelList& list) {
  add_plain_elementwise(list);
  add_plain_products(list);
  add_plain_reductions(list);
  add_plain_normalizations(list);
  add_plain_step(list);
}

}  // namespace ftrain::cpu
