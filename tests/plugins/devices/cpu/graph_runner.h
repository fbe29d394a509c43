// Runs a graph node by node with chosen CPU kernels, every value in its own guarded memory. Values
// go in and come out row-major, whatever their layout.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ftrain/base/dtype.h"
#include "ftrain/device/kernel.h"
#include "ftrain/graph/graph.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/device/layout.h"

namespace ftrain::cpu {

// 64-byte aligned memory with a pattern around it that nobody may touch.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(std::size_t bytes)
      : bytes_(bytes), whole_((bytes + 3 * guard) / guard * guard) {
    memory_ = static_cast<unsigned char*>(std::aligned_alloc(guard, whole_));
    std::memset(memory_, pattern, whole_);
    if (made) made(memory_, whole_);
  }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  ~GuardedBuffer() {
    if (freed) freed(memory_);
    std::free(memory_);
  }

  // What is done with new memory, and before it is freed: a device may want to know it.
  inline static std::function<void(void*, std::size_t)> made;
  inline static std::function<void(void*)> freed;

  void* data() { return memory_ + guard; }
  std::size_t bytes() const { return bytes_; }
  bool intact() const {
    const auto is_pattern = [](unsigned char byte) { return byte == pattern; };
    return std::all_of(memory_, memory_ + guard, is_pattern) &&
           std::all_of(memory_ + guard + bytes_, memory_ + whole_, is_pattern);
  }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr unsigned char pattern = 0xA5;
  std::size_t bytes_, whole_;
  unsigned char* memory_;
};

// Calls f(row-major index, index in the layout) for every element.
template <class F>
void each_element(const TensorType& type, const F& f) {
  const std::int64_t block = channel_block(type.layout);
  if (block == 1) {
    for (std::int64_t i = 0; i < type.shape.elements(); ++i) f(i, i);
    return;
  }
  const std::int64_t channels = type.shape[1], positions = type.shape[2] * type.shape[3];
  for (std::int64_t n = 0; n < type.shape[0]; ++n) {
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t s = 0; s < positions; ++s) {
        f((n * channels + c) * positions + s,
          ((n * (channels / block) + c / block) * positions + s) * block + c % block);
      }
    }
  }
}

class GraphRunner {
 public:
  // `only`: a kernel's name, or empty for the best.
  GraphRunner(const Graph& graph, const KernelList& kernels, KernelEnvironment environment,
              std::string only = {})
      : graph_(graph), kernels_(kernels), environment_(environment), only_(std::move(only)) {
    for (std::int32_t i = 0; i < graph.size(); ++i) {
      auto& outputs = values_.emplace_back();
      for (const TensorType& type : graph.node(i).outputs) {
        outputs.push_back(std::make_shared<GuardedBuffer>(type.bytes()));
      }
    }
  }

  void set(Value value, const std::vector<float>& row_major) {
    void* const to = buffer(value).data();
    const bool bf16 = value.dtype() == DType::bf16;
    each_element(value.type(), [&](std::int64_t logical, std::int64_t physical) {
      const float element = row_major[static_cast<std::size_t>(logical)];
      if (bf16)
        static_cast<BF16*>(to)[physical] = to_bf16(element);
      else
        static_cast<float*>(to)[physical] = element;
    });
  }
  void set_bytes(Value value, const void* data) {
    std::memcpy(buffer(value).data(), data, value.type().bytes());
  }

  // Lets kernels write over the input that they say they may, where nothing else uses it.
  void run(bool in_place = false) {
    for (std::int32_t i = 0; i < graph_.size(); ++i) {
      const Node& node = graph_.node(i);
      if (!node.op->leaf && !skip(node)) run_node(node, in_place);
    }
    for (auto& outputs : values_) {
      for (auto& value : outputs) ASSERT_TRUE(value->intact());
    }
  }

  std::vector<float> get(Value value) {
    const void* const from = buffer(value).data();
    const bool bf16 = value.dtype() == DType::bf16;
    std::vector<float> result(static_cast<std::size_t>(value.shape().elements()));
    each_element(value.type(), [&](std::int64_t logical, std::int64_t physical) {
      result[static_cast<std::size_t>(logical)] =
          bf16 ? to_f32(static_cast<const BF16*>(from)[physical])
               : static_cast<const float*>(from)[physical];
    });
    return result;
  }

  // Which nodes not to run.
  std::function<bool(const Node&)> skip = [](const Node&) { return false; };
  // Returns when the kernel is done.
  std::function<void(Kernel&)> launch = [](Kernel& kernel) { kernel.launch(); };
  // How often each kernel ran: "op/name".
  std::map<std::string, int> ran;

 private:
  GuardedBuffer& buffer(Value value) {
    return *values_[static_cast<std::size_t>(value.node_index())]
                   [static_cast<std::size_t>(value.output())];
  }

  void run_node(const Node& node, bool in_place) {
    const KernelChoice choice = kernels_.choose(node, environment_, only_);
    const std::unique_ptr<Kernel> kernel = choice.def->make(node, environment_);
    ++ran[std::string(choice.def->op) + "/" + std::string(choice.def->name)];
    auto& outputs = values_[static_cast<std::size_t>(node.index)];
    if (in_place && kernel->overwrites() >= 0) {
      const Value over = node.inputs[static_cast<std::size_t>(kernel->overwrites())];
      outputs[0] = values_[static_cast<std::size_t>(over.node_index())]
                          [static_cast<std::size_t>(over.output())];
    }
    std::vector<void*> in, out;
    for (const Value& input : node.inputs) {
      in.push_back(input.valid() ? buffer(input).data() : nullptr);
    }
    for (auto& output : outputs) out.push_back(output->data());
    GuardedBuffer scratch(kernel->scratch_bytes());
    kernel->bind(in, out, scratch.data());
    launch(*kernel);
    EXPECT_TRUE(scratch.intact()) << node.op->name;
  }

  const Graph& graph_;
  const KernelList& kernels_;
  KernelEnvironment environment_;
  std::string only_;
  std::vector<std::vector<std::shared_ptr<GuardedBuffer>>> values_;
};

inline std::vector<float> random_values(std::size_t count, std::uint32_t seed, float mean = 0,
                                        float deviation = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(mean, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// The largest difference, in units of the reference's root mean square.
inline double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0, squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double(a[i]) - double(b[i]));
    if (!(difference <= worst)) worst = difference;
    squares += double(b[i]) * double(b[i]);
  }
  return squares == 0 ? worst : worst / std::sqrt(squares / static_cast<double>(a.size()));
}

}  // namespace ftrain::cpu
