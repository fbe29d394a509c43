// The CPU device's kernels, by family. Each function adds its family to a list; the list orders by
// priority, so the order of the calls does not matter.
//
// Priorities: 0 plain loops, 10 Highway, 20 oneDNN, 30 what beats oneDNN on the shapes it accepts.
#pragma once

#include "ftrain/device/kernel.h"

namespace ftrain::cpu {

// What KernelEnvironment::device points to; nullptr stands for all of it off.
struct KernelOptions {
  bool winograd = false;
  bool bf16 = false;  // the processor has bf16 dot products and the job may use them
};

inline KernelOptions options_of(const KernelEnvironment& environment) {
  const auto* options = static_cast<const KernelOptions*>(environment.device);
  return options != nullptr ? *options : KernelOptions{};
}

void add_reference_kernels(KernelList& list);     // reference/: every op, f32 and f64, row-major
void add_simd_kernels(KernelList& list);          // simd/: Highway, blocked layouts, f32
void add_onednn_kernels(KernelList& list);        // onednn/: convolutions, products, reorders
void add_folded_kernels(KernelList& list);        // folded/: convolutions with their last steps
void add_plain_folded_kernels(KernelList& list);  // of them the oracle alone
void add_class_center_kernels(KernelList& list);  // class_center/: plain and tiled walks
void add_plain_class_center_kernels(KernelList& list);  // of them the oracle alone
void add_collective_kernels(KernelList& list);          // collectives over a Communicator

}  // namespace ftrain::cpu
