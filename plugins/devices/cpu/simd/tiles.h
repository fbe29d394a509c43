// How the Highway kernels see an activation: as tiles of rows of one channel block.
//
// [N, C, H, W] in blocks of B channels is N x C/B tiles of H W rows of B floats, one after another.
// A row-major [N, C] is, for `groups` runs of samples, groups x C/B tiles of N/groups rows that lie
// C floats apart. So one loop over rows serves both.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ftrain/cpu/parallel.h"
#include "ftrain/device/kernel.h"
#include "plugins/devices/cpu/device/layout.h"

namespace ftrain::cpu {

struct Tiles {
  std::int64_t block = 0;         // floats in a row
  std::int64_t blocks = 0;        // channel blocks
  std::int64_t outer = 0;         // runs of tiles: samples, or groups of samples
  std::int64_t rows = 0;          // rows in a tile
  std::int64_t stride = 0;        // floats from row to row
  std::int64_t outer_stride = 0;  // floats from run to run
  std::int64_t block_stride = 0;  // floats from block to block

  std::int64_t count() const { return outer * blocks; }
  std::int64_t channels() const { return blocks * block; }
  std::int64_t offset(std::int64_t run, std::int64_t channel_block) const {
    return run * outer_stride + channel_block * block_stride;
  }
};

// What this activation is as tiles, for statistics over `groups` runs of samples.
Tiles tiles_of(const TensorType& type, std::int64_t groups = 1);

// Why a node's tensors cannot be taken as tiles: the inputs in `activations` and the outputs in
// `results` must be f32 (or, with `bf16`, all bf16) of one layout that tiles_of() takes. Everything
// else must be f32 row-major.
std::string refuse_tiles(const Node& node, std::initializer_list<std::size_t> activations,
                         std::initializer_list<std::size_t> results = {0}, bool bf16 = false);

// Why a node's tensors cannot be taken as flat runs: all must be f32 or bf16, of one layout.
std::string refuse_flat(const Node& node, std::initializer_list<std::size_t> inputs,
                        std::initializer_list<std::size_t> outputs = {0});

// Keeps the addresses that bind() hands over.
class BoundKernel : public Kernel {
 public:
  explicit BoundKernel(const KernelEnvironment& environment) : threads_(environment.threads) {}

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    inputs_.assign(inputs.begin(), inputs.end());
    outputs_.assign(outputs.begin(), outputs.end());
    scratch_ = scratch;
  }

 protected:
  const float* input(std::size_t i) const { return static_cast<const float*>(inputs_[i]); }
  float* output(std::size_t i) const { return static_cast<float*>(outputs_[i]); }
  int threads() const { return threads_; }

  // Whether to write an output past the caches: it is too large for them and no line of it is
  // there.
  bool writes_around_caches(std::size_t bytes, std::size_t output = 0) const;

  std::vector<void*> inputs_, outputs_;
  void* scratch_ = nullptr;

 private:
  int threads_;
};

// For KernelDef::make.
template <class K>
std::unique_ptr<Kernel> make_kernel(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<K>(node, environment);
}

// By file.
void add_flat_kernels(KernelList& list);
void add_prelu_kernels(KernelList& list);
void add_moments_kernels(KernelList& list);
void add_batch_norm_kernels(KernelList& list);
void add_batch_norm_gradient_kernels(KernelList& list);
void add_norm_chain_kernels(KernelList& list);
void add_pool_kernels(KernelList& list);
void add_update_kernels(KernelList& list);
void add_image_kernels(KernelList& list);
void add_depthwise_kernels(KernelList& list);
void add_depthwise_block_kernels(KernelList& list);

}  // namespace ftrain::cpu
