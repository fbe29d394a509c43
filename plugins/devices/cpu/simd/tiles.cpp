#include "plugins/devices/cpu/simd/tiles.h"

#include <algorithm>

#include "plugins/devices/cpu/device/kernels.h"

namespace ftrain::cpu {
namespace {

// From this size on an output is written past the caches.
constexpr std::size_t large_bytes = std::size_t{16} << 20;

bool takes(const TensorType& type) {
  if (type.shape.rank() == 4) return channel_block(type.layout) > 1;
  return type.shape.rank() == 2 && type.layout == row_major && type.shape[1] % 8 == 0;
}

bool holds(std::initializer_list<std::size_t> list, std::size_t i) {
  return std::find(list.begin(), list.end(), i) != list.end();
}

}  // namespace

Tiles tiles_of(const TensorType& type, std::int64_t groups) {
  const Shape& shape = type.shape;
  Tiles tiles;
  if (shape.rank() == 4) {
    tiles.block = channel_block(type.layout);
    tiles.outer = shape[0];
    tiles.rows = shape[2] * shape[3];
    tiles.stride = tiles.block;
    tiles.outer_stride = shape[1] * tiles.rows;
    tiles.block_stride = tiles.rows * tiles.block;
  } else {
    tiles.block = shape[1] % 16 == 0 ? 16 : 8;
    tiles.outer = groups;
    tiles.rows = shape[0] / groups;
    tiles.stride = shape[1];
    tiles.outer_stride = tiles.rows * shape[1];
    tiles.block_stride = tiles.block;
  }
  tiles.blocks = shape[1] / tiles.block;
  return tiles;
}

std::string refuse_tiles(const Node& node, std::initializer_list<std::size_t> activations,
                         std::initializer_list<std::size_t> results, bool bf16) {
  const TensorType& first = node.input(*activations.begin());
  if (first.dtype != DType::f32 && !(bf16 && first.dtype == DType::bf16)) {
    return bf16 ? "only f32 and bf16" : "only f32";
  }
  if (!takes(first)) return "only channel-blocked images, or [N, C] with C a multiple of 8";
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid()) continue;
    const TensorType& type = node.input(i);
    const bool activation = holds(activations, i);
    if (type.dtype != (activation ? first.dtype : DType::f32)) return "operands of other types";
    if (type.layout != (activation ? first.layout : row_major)) {
      return "operands in different layouts";
    }
  }
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    const TensorType& type = node.outputs[i];
    const bool result = holds(results, i);
    if (type.dtype != (result ? first.dtype : DType::f32)) return "a result of another type";
    if (type.layout != (result ? first.layout : row_major)) return "result in another layout";
  }
  return {};
}

std::string refuse_flat(const Node& node, std::initializer_list<std::size_t> inputs,
                        std::initializer_list<std::size_t> outputs) {
  const TensorType& first = node.input(*inputs.begin());
  if (first.dtype != DType::f32 && first.dtype != DType::bf16) return "only f32 and bf16";
  for (const std::size_t i : inputs) {
    if (node.input(i).dtype != first.dtype) return "operands of other types";
    if (node.input(i).layout != first.layout) return "operands in different layouts";
  }
  for (const std::size_t i : outputs) {
    if (node.outputs[i].dtype != first.dtype) return "a result of another type";
    if (node.outputs[i].layout != first.layout) return "result in another layout";
  }
  return {};
}

bool BoundKernel::writes_around_caches(std::size_t bytes, std::size_t output) const {
  void* const to = outputs_[output];
  if (bytes < large_bytes || reinterpret_cast<std::uintptr_t>(to) % 64 != 0) return false;
  return std::find(inputs_.begin(), inputs_.end(), to) == inputs_.end();
}

void add_simd_kernels(KernelList& list) {
  add_flat_kernels(list);
  add_prelu_kernels(list);
  add_moments_kernels(list);
  add_batch_norm_kernels(list);
  add_batch_norm_gradient_kernels(list);
  add_norm_chain_kernels(list);
  add_pool_kernels(list);
  add_update_kernels(list);
  add_image_kernels(list);
  add_depthwise_kernels(list);
  add_depthwise_block_kernels(list);
}

}  // namespace ftrain::cpu
