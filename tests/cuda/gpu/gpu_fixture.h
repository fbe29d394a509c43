// Tests on a real GPU: they are skipped, saying so, where there is none.
//
// Runs single nodes by the device's own kernels, cuDNN's and cuBLASLt's, between guard bytes in the
// GPU's memory, and holds the results against what the CPU's plain kernels make of them.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/runtime/check.h"
#include "plugins/devices/cuda/runtime/machine.h"
#include "plugins/devices/cuda/runtime/memory.h"
#include "plugins/devices/cuda/runtime/stream.h"
#include "tests/cuda/node_cases.h"
#include "tests/plugins/devices/cpu/guarded.h"
#include "tests/plugins/devices/cpu/kernel_run.h"
#include "tests/plugins/devices/cpu/lone_node.h"

namespace ftrain::cuda {

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
      GTEST_SKIP() << "no GPU here: " << cudaGetErrorString(error);
    }
  }
};

// How a job computes.
struct GpuPrecision {
  const char* name;
  DType dtype;  // of activations
  bool tf32;
  double closeness;  // of the largest element
};
inline constexpr GpuPrecision gpu_precisions[] = {{"fp32", DType::f32, false, 1e-5},
                                                  {"tf32", DType::f32, true, 1e-3},
                                                  {"bf16", DType::bf16, false, 2e-2},
                                                  {"fp16", DType::f16, false, 2e-2}};

// The first GPU with all libraries, whose heuristics choose. Made when first asked for, and never
// given back: CUDA may be gone when a process destroys what is static.
inline Machine& gpu_machine(bool tf32) {
  static Machine* machines[2] = {};
  Machine*& machine = machines[tf32];
  if (machine == nullptr) {
    machine = new Machine(find_gpu(-1, 0, 1), {.training = tf32});
    machine->cudnn = open_cudnn(
        {.gpu = machine->gpu.name, .driver = machine->gpu.driver, .autotune = false, .file = {}});
    machine->cublas = open_cublas(
        {.gpu = machine->gpu.name, .driver = machine->gpu.driver, .autotune = false, .file = {}});
    machine->set_libraries();
  }
  return *machine;
}

inline KernelEnvironment environment_of(const Machine& machine) {
  KernelEnvironment environment;
  environment.device = &machine.training;
  return environment;
}

// Every kernel but the collectives'.
inline const KernelList& gpu_kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_pointwise_kernels(made);
    add_reduction_kernels(made);
    add_update_kernels(made);
    add_normalization_kernels(made);
    add_depthwise_kernels(made);
    add_class_center_kernels(made);
    add_product_kernels(made);
    add_cudnn_kernels(made);
    add_cublas_kernels(made);
    return made;
  }();
  return list;
}

// A tensor in the GPU's memory, between guards: all ones at first, which is NaN in every floating
// type.
class GpuBuffer {
 public:
  explicit GpuBuffer(std::size_t bytes)
      : size_(bytes), memory_(bytes + 2 * margin, "a test's tensor") {
    check(cudaMemsetAsync(memory_.data(), guard, memory_.bytes(), nullptr), "a test's guards");
    check(cudaMemsetAsync(data(), 0xFF, bytes, nullptr), "a test's tensor");
    finish(nullptr, "making a test's tensor");
  }
  explicit GpuBuffer(const cpu::Bytes& contents) : GpuBuffer(contents.size) {
    copy(data(), contents.data(), size_, cudaMemcpyHostToDevice);
  }

  char* data() const { return memory_.data() + margin; }
  cpu::Guarded contents() const {
    cpu::Guarded on_host(size_);
    copy(on_host.data(), data(), size_, cudaMemcpyDeviceToHost);
    return on_host;
  }
  bool intact() const {
    std::vector<unsigned char> around(2 * margin);
    copy(around.data(), memory_.data(), margin, cudaMemcpyDeviceToHost);
    copy(around.data() + margin, data() + size_, margin, cudaMemcpyDeviceToHost);
    return std::all_of(around.begin(), around.end(),
                       [](unsigned char byte) { return byte == guard; });
  }

 private:
  static void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    check(cudaMemcpyAsync(to, from, bytes, kind, nullptr), "copying a test's tensor");
    finish(nullptr, "copying a test's tensor");
  }

  static constexpr std::size_t margin = 512;
  static constexpr unsigned char guard = 0xA5;
  std::size_t size_;
  DeviceMemory memory_;
};

// A kernel's run on a lone node whose types have their layouts. `in_place`: output 0 takes over the
// storage of the input that the kernel says it may.
class GpuRun {
 public:
  GpuRun(const cpu::LoneNode& lone, const KernelDef& def, const Machine& machine, bool in_place)
      : lone_(lone),
        stream_(machine.training.stream),
        kernel_(def.make(lone.node(), environment_of(machine))) {
    const Node& node = lone.node();
    for (std::size_t i = 0; i < lone.leaves().size(); ++i) {
      leaves_.emplace_back(rearranged(lone.leaves()[i].type(), lone.before()[i].data(), true));
    }
    for (const TensorType& type : node.outputs) outputs_.emplace_back(type.bytes());
    scratch_ = std::make_unique<GpuBuffer>(kernel_->scratch_bytes());
    std::vector<void*> inputs, outputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const int leaf = lone.leaf_of(i);
      inputs.push_back(leaf < 0 ? nullptr : leaves_[static_cast<std::size_t>(leaf)].data());
    }
    for (const GpuBuffer& output : outputs_) outputs.push_back(output.data());
    if (in_place) {
      taken_ = lone.leaf_of(static_cast<std::size_t>(kernel_->overwrites()));
      outputs[0] = leaves_[static_cast<std::size_t>(taken_)].data();
    }
    kernel_->bind(inputs, outputs, scratch_->data());
  }

  int overwrites() const { return kernel_->overwrites(); }
  void enqueue() { kernel_->launch(); }
  void launch() {
    enqueue();
    finish(stream_, "running a kernel of a test");
  }

  void check_against_plain(double closeness) const {
    const Node& node = lone_.node();
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      EXPECT_EQ(cpu::compare(node.outputs[i], lone_.outputs()[i], output(i), closeness, rearranged),
                "")
          << "output " << i;
      EXPECT_TRUE(outputs_[i].intact()) << "guards of output " << i;
    }
    std::set<int> written;
    for (const int input : written_inputs(node)) {
      written.insert(lone_.leaf_of(static_cast<std::size_t>(input)));
    }
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
      EXPECT_TRUE(leaves_[i].intact()) << "guards of operand " << i;
      if (static_cast<int>(i) == taken_) continue;
      const TensorType& type = lone_.leaves()[i].type();
      const cpu::Guarded found = leaves_[i].contents();
      if (written.contains(static_cast<int>(i))) {
        EXPECT_EQ(cpu::compare(type, lone_.after()[i], found, closeness, rearranged), "")
            << "state " << i;
      } else {
        EXPECT_TRUE(found.equals(rearranged(type, lone_.before()[i].data(), true).data()))
            << "operand " << i << " has changed";
      }
    }
    EXPECT_TRUE(scratch_->intact()) << "guards of the scratch";
  }

  // As it lies.
  cpu::Guarded output(std::size_t i) const {
    const bool moved = i == 0 && taken_ >= 0;
    return (moved ? leaves_[static_cast<std::size_t>(taken_)] : outputs_[i]).contents();
  }
  // Of outputs and operands.
  std::vector<cpu::Guarded> contents() const {
    std::vector<cpu::Guarded> all;
    for (const auto* buffers : {&outputs_, &leaves_}) {
      for (const GpuBuffer& buffer : *buffers) all.push_back(buffer.contents());
    }
    return all;
  }

 private:
  const cpu::LoneNode& lone_;
  cudaStream_t stream_;
  std::unique_ptr<Kernel> kernel_;
  std::vector<GpuBuffer> leaves_, outputs_;
  std::unique_ptr<GpuBuffer> scratch_;
  int taken_ = -1;
};

// The kernel against the plain one, and against itself: two runs give the same bits.
inline void check_on_gpu(const cpu::LoneNode& lone, const KernelDef& def, const Machine& machine,
                         double closeness, bool in_place = false) {
  GpuRun run(lone, def, machine, in_place), again(lone, def, machine, in_place);
  run.launch();
  run.check_against_plain(cpu::is_exact(def.op) ? 0 : closeness);
  again.launch();
  const auto first = run.contents(), second = again.contents();
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_TRUE(first[i].equals(second[i].data())) << "buffer " << i << " of a second run";
  }
}

// f(kernel, layout's name) for every kernel that takes the node, in every order of its elements.
template <class F>
void each_gpu_kernel(cpu::LoneNode& lone, const Machine& machine, const F& f) {
  const KernelEnvironment environment = environment_of(machine);
  each_layout(lone, [&](const std::string& layout) {
    for (const KernelDef* def : gpu_kernels().of(lone.node().op->name)) {
      if (def->refuse && !def->refuse(lone.node(), environment).empty()) continue;
      SCOPED_TRACE(std::string(def->op) + " by " + std::string(def->name) + ", " + layout + ": " +
                   lone.node().attributes.text());
      f(*def);
    }
  });
}

}  // namespace ftrain::cuda
