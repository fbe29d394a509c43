// One node taken out of a graph, with row-major operands: what a kernel is tested on.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "plugins/devices/cpu/device/layout.h"
#include "plugins/devices/cpu/onednn/convolution.h"
#include "tests/plugins/devices/cpu/interpreter.h"

namespace ftrain::cpu {

// Bytes of a tensor, in 64-bit words so that they are aligned.
struct Bytes {
  explicit Bytes(std::size_t count) : size(count), words((count + 7) / 8) {}
  Bytes(std::size_t count, const void* from) : Bytes(count) {
    if (count > 0) std::memcpy(words.data(), from, count);
  }
  void* data() { return words.data(); }
  const void* data() const { return words.data(); }
  std::size_t size;
  std::vector<std::uint64_t> words;
};

class LoneNode {
 public:
  // The operands' contents are what `source` holds after it ran. Those in `narrow` are taken in
  // bf16 or f16, and with them everything is rounded so that it could be: kernels may round
  // weights.
  LoneNode(const Node& node, Interpreter& source, const std::vector<std::size_t>& narrow = {},
           DType to = DType::bf16) {
    std::vector<Value> inputs;
    std::map<std::pair<int, int>, std::size_t> known;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const Value& input = node.inputs[i];
      if (!input.valid()) {
        inputs.emplace_back();
        continue;
      }
      const auto [at, fresh] =
          known.try_emplace({input.node_index(), input.output()}, known.size());
      if (fresh) {
        const std::string name = "operand" + std::to_string(at->second);
        TensorType type = input.type();
        Bytes contents(type.bytes(), source.bytes(input));
        if (!narrow.empty() && type.dtype == DType::f32) round_to(to, contents);
        if (std::find(narrow.begin(), narrow.end(), i) != narrow.end()) {
          type.dtype = to;
          contents = narrowed(to, contents);
        }
        leaves_.push_back(input.graph().state_of(input) ? graph_.state({.name = name, .type = type})
                                                        : graph_.input(name, type));
        before_.push_back(std::move(contents));
      }
      inputs.push_back(leaves_[at->second]);
    }
    value_ = graph_.emit(*node.op, inputs, node.attributes, node.name);
    compute_expected();
  }

  const Node& node() const { return graph_.node(value_.node_index()); }
  const std::vector<Value>& leaves() const { return leaves_; }
  // Row-major contents: of the leaves before and after the node, and of the outputs.
  const std::vector<Bytes>& before() const { return before_; }
  const std::vector<Bytes>& after() const { return after_; }
  const std::vector<Bytes>& outputs() const { return outputs_; }
  // Which leaf an input is; -1 when it is not given.
  int leaf_of(std::size_t input) const {
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      if (node().inputs[input] == leaves_[i]) return static_cast<int>(i);
    }
    return -1;
  }

  // The ways in which the operands may lie: row-major; activations in blocks of 8 and 16 channels
  // where they divide; the same with a convolution's weight as oneDNN likes it. f(name) is called
  // with the node's types set so; afterwards they are row-major again.
  template <class F>
  void each_layout(const F& f) {
    f("row-major");
    for (const std::int64_t block : {8, 16}) {
      bool any = false;
      for (TensorType* type : types()) any = block_activation(*type, block) || any;
      const std::string name = blocked_layout(block);
      if (any) f(name);
      if (TensorType* weight = weight_type()) {
        const ConvolutionTypes convolution = convolution_types(node());
        weight->layout = node().op->name == "conv2d_weight_grad"
                             ? made_weight_layout(convolution)
                             : preferred_weight_layout(convolution);
        if (!weight->layout.empty()) f(name + " with weight " + weight->layout);
      }
      for (TensorType* type : types()) type->layout = row_major;
    }
  }

  // To set their layouts: all types, and that of a convolution's weight (nullptr: none).
  std::vector<TensorType*> types() {
    std::vector<TensorType*> all;
    for (const Value& leaf : leaves_) all.push_back(&graph_.node(leaf.node_index()).outputs[0]);
    for (TensorType& type : graph_.node(value_.node_index()).outputs) all.push_back(&type);
    return all;
  }

  TensorType* weight_type() {
    const std::string_view op = node().op->name;
    if (op == "conv2d" || op == "conv2d_input_grad") {
      return &graph_.node(node().inputs[1].node_index()).outputs[0];
    }
    if (op == "conv2d_weight_grad") return &graph_.node(value_.node_index()).outputs[0];
    return nullptr;
  }

 private:
  static void round_to(DType to, Bytes& floats) {
    auto* const values = static_cast<float*>(floats.data());
    for (std::size_t i = 0; i < floats.size / sizeof(float); ++i) {
      values[i] = to == DType::bf16 ? to_f32(to_bf16(values[i])) : to_f32(to_f16(values[i]));
    }
  }
  static Bytes narrowed(DType to, const Bytes& floats) {
    Bytes made(floats.size / 2);
    const auto* const values = static_cast<const float*>(floats.data());
    for (std::size_t i = 0; i < floats.size / sizeof(float); ++i) {
      static_cast<std::uint16_t*>(made.data())[i] =
          to == DType::bf16 ? to_bf16(values[i]).bits : to_f16(values[i]).bits;
    }
    return made;
  }

  void compute_expected() {
    Interpreter oracle(graph_);
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      std::memcpy(oracle.bytes(leaves_[i]), before_[i].data(), before_[i].size);
    }
    oracle.run();
    for (const Value& leaf : leaves_) after_.emplace_back(leaf.type().bytes(), oracle.bytes(leaf));
    for (std::size_t i = 0; i < node().outputs.size(); ++i) {
      outputs_.emplace_back(node().outputs[i].bytes(),
                            oracle.bytes(value_.sibling(static_cast<std::int32_t>(i))));
    }
  }

  bool block_activation(TensorType& type, std::int64_t block) {
    if (&type == weight_type() || type.shape.rank() != 4) return false;
    if (type.dtype != DType::f32 && type.dtype != DType::bf16) return false;
    if (type.shape[1] % block != 0) return false;
    type.layout = blocked_layout(block);
    return true;
  }

  Graph graph_;
  std::vector<Value> leaves_;
  Value value_;
  std::vector<Bytes> before_, after_, outputs_;
};

// Row-major [N, C, H, W] to [N][C / B][H][W][B] (or back), spelled out.
template <class T>
void rearrange_blocks(const TensorType& type, const void* from, bool to_layout, void* to) {
  const std::int64_t block = channel_block(type.layout);
  const std::int64_t channels = type.shape[1], positions = type.shape[2] * type.shape[3];
  const auto* source = static_cast<const T*>(from);
  auto* target = static_cast<T*>(to);
  for (std::int64_t n = 0; n < type.shape[0]; ++n) {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t p = 0; p < positions; ++p) {
        const std::int64_t plain = (n * channels + c) * positions + p;
        const std::int64_t blocked =
            ((n * (channels / block) + c / block) * positions + p) * block + c % block;
        if (to_layout)
          target[blocked] = source[plain];
        else
          target[plain] = source[blocked];
      }
    }
  }
}

// The tensor as it lies in its layout, or back. Layouts that are no activation's are weights',
// which only oneDNN knows.
inline Bytes rearranged(const TensorType& type, const void* from, bool to_layout) {
  Bytes made(type.bytes(), from);
  const std::int64_t block = channel_block(type.layout);
  if (type.layout.empty()) return made;
  if (block == 1) {
    if (to_layout)
      copy_from_row_major(type, from, made.data());
    else
      copy_to_row_major(type, from, made.data());
    return made;
  }
  if (type.dtype == DType::bf16)
    rearrange_blocks<BF16>(type, from, to_layout, made.data());
  else
    rearrange_blocks<float>(type, from, to_layout, made.data());
  return made;
}

}  // namespace ftrain::cpu
