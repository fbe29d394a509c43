// The parts of the pointwise family, and how they deal out elements to threads.
#pragma once

#include "plugins/devices/cuda/ops/kernels/pointwise.cuh"
#include "plugins/devices/cuda/ops/node_kernel.h"

namespace ftrain::cuda {

void add_copy_kernels(KernelList& list);    // copies.cu: casts, slices, reshapes, repetitions
void add_scalar_kernels(KernelList& list);  // scalars.cu: the step's guards

// `count` elements at addresses of which all must be aligned for whole packets.
template <class T>
Span<T> span_of(std::int64_t count, std::initializer_list<const void*> addresses) {
  return {aligned(addresses) ? count / packet_size<T> : 0, count};
}

template <class T>
Grid flat_grid(const Span<T>& span, const Context& context) {
  const std::int64_t behind = span.count - span.packets * packet_size<T>;
  return {.blocks = resident_blocks(std::max(span.packets, behind), context)};
}

}  // namespace ftrain::cuda
