// What products of matrices have in common, whoever multiplies.
#pragma once

#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/devices/cuda/ops/tile_product.h"

namespace ftrain::cuda {

inline ProductShape product_of(const Node& node, bool tf32) {
  ProductShape shape{.a_transposed = node.attributes.flag("transpose_a"),
                     .b_transposed = node.attributes.flag("transpose_b"),
                     .a = node.input(0).dtype,
                     .b = node.input(1).dtype,
                     .tf32 = tf32};
  shape.m = node.outputs[0].shape[0];
  shape.n = node.outputs[0].shape[1];
  shape.k = node.input(0).shape[shape.a_transposed ? 0 : 1];
  return shape;
}

// Of types other than f32, bf16 and f16, and of results other than f32.
std::string refuse_product(const Node& node);

// The node's kernel by that plan.
std::unique_ptr<Kernel> product_kernel(std::shared_ptr<const ProductPlan> plan,
                                       const KernelEnvironment& environment);

}  // namespace ftrain::cuda
