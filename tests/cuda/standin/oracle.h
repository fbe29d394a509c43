// What stands for cuDNN and cuBLASLt: ops done by the CPU device's kernels, as work of the host in
// its turn on the stream.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <vector>

#include "ftrain/device/kernel.h"
#include "ftrain/graph/graph.h"

namespace standin {

// A tensor in f32, row-major, made of one that lies in any type and order of the device; and back.
void widen(const ftrain::TensorType& type, const void* from, float* row_major);
void narrow(const ftrain::TensorType& type, const float* row_major, void* to);
// As tensor cores read an f32: ten bits of fraction, to the nearest, ties away from zero.
void round_to_tf32(std::vector<float>& values);

// A node's op with f32 operands, row-major, on one thread.
class HostNode {
 public:
  explicit HostNode(const ftrain::Node& like);
  std::vector<float>& input(std::size_t i) { return inputs_[i]; }
  const std::vector<float>& output() const { return output_; }
  void run();

 private:
  std::unique_ptr<ftrain::Kernel> kernel_;
  std::vector<std::vector<float>> inputs_;
  std::vector<float> output_;
  std::vector<std::byte> scratch_;
};

// A node to be done later. Those that are alike share a HostNode in each thread that does them.
class HostOp {
 public:
  explicit HostOp(const ftrain::Node& like);
  HostNode& here() const;

 private:
  std::shared_ptr<const ftrain::Graph> graph_;
  std::int32_t node_ = 0;
  std::string text_;
};

}  // namespace standin
