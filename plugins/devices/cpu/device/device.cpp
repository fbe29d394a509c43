#include "plugins/devices/cpu/device/device.h"

#include <omp.h>

#include <algorithm>

#include "core/base/process.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "plugins/devices/cpu/device/executable.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/device/store.h"
#include "plugins/devices/cpu/device/target.h"
#include "plugins/devices/cpu/device/threads.h"
#include "plugins/devices/cpu/onednn/onednn.h"
#include "plugins/devices/cpu/winograd/winograd.h"

namespace ftrain::cpu {
void CpuDevice::configure(Keys& keys) {
  keys.bind("threads", threads, "threads of a rank; 0: its share of the process's cores",
            at_least(0));
  keys.bind("isa", isa, "the most capable instructions to use",
            one_of({"auto", "plain", "avx2", "avx512"}));
  keys.bind(
      "precision", precision,
      "what convolutions and activations are in: fp32 (auto too), or bf16 where the processor "
      "has dot products of it; parameters, statistics and losses are fp32",
      one_of({"auto", "fp32", "tf32", "bf16", "fp16"}));
  keys.bind("kernels", kernel_choice, "auto: the fastest; reference: plain loops, nothing fused",
            one_of({"auto", "reference"}));
  keys.bind("winograd", winograd,
            "3x3 convolutions by Winograd's method where it is faster; coarser rounding",
            one_of({"auto", "off"}));
  keys.bind("autotune", autotune,
            "choose kernels by measuring them, once on a machine; false: by a fixed order");
  keys.bind("recompute", recompute,
            "activations to make again in the backward walk instead of keeping them: none; cheap: "
            "batch norms and PReLUs; block: all within a block of the network",
            one_of({"none", "cheap", "block"}));
  keys.bind("pin", pin,
            "a core of its own for each thread; auto: when the machine's ranks share its cores "
            "evenly, or someone gave this process some of them",
            one_of({"auto", "on", "off"}));
  keys.bind("overlap", overlap, "collectives run beside the kernels, on a thread of their own");
}

void CpuDevice::open(int local_rank, int local_ranks) {
  local_rank_ = local_rank;
  local_ranks_ = local_ranks;
  if (precision == "tf32" || precision == "fp16") {
    throw DeviceError("[device] precision = \"" + precision +
                      "\": the CPU device computes in fp32 or bf16; set precision = \"fp32\"");
  }
  const std::string best = best_isa();
  isa_ = isa == "auto" ? best : isa;
  if (!is_within(isa_, best)) {
    throw DeviceError("[device] isa = \"" + isa_ + "\": this processor has at most \"" + best +
                      "\"; set isa = \"auto\"");
  }
  if (precision == "bf16" && (!has_bf16() || isa_ != "avx512")) {
    throw DeviceError(std::string("[device] precision = \"bf16\": ") +
                      (has_bf16() ? "isa = \"" + isa_ +
                                        "\" has no dot products of bf16; set isa = "
                                        "\"auto\" or precision = \"fp32\""
                                  : "this processor has no dot products of bf16 (AVX512_BF16), and "
                                    "without them bf16 is slower than fp32; set precision = "
                                    "\"fp32\""));
  }
  limit_isa(isa_);
  threads_ =
      threads > 0 ? static_cast<int>(threads) : cores_of_rank(local_rank, local_ranks).threads();
  dnnl::set_primitive_cache_capacity(4096);  // a deep network's primitives are made only once

  options_ = {.winograd = winograd == "auto", .bf16 = precision == "bf16"};
  kernels_ = {};
  add_reference_kernels(kernels_);
  add_collective_kernels(kernels_);
  if (kernel_choice == "reference") {
    add_plain_class_center_kernels(kernels_);
    return;
  }
  add_simd_kernels(kernels_);
  add_onednn_kernels(kernels_);
  add_winograd_kernels(kernels_);
  add_folded_kernels(kernels_);
  add_class_center_kernels(kernels_);
}

// The reference is plain loops alone: of others it takes what it has no loop for.
void CpuDevice::add_kernel(const KernelDef& def) {
  if (kernel_choice == "reference" && !kernels_.of(def.op).empty()) return;
  kernels_.add(def);
}

std::string CpuDevice::summary() const {
  const dnnl_version_t* version = dnnl::version();
  return "CPU " + processor().name + ", " + std::to_string(threads_) +
         (threads_ == 1 ? " thread, " : " threads, ") + isa_ + ", oneDNN " +
         std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

std::string CpuDevice::choices() const {
  return used_.empty() ? "" : text_of(used_, circumstances_of(environment(nullptr)));
}

void CpuDevice::repeat(std::string_view choices) {
  try {
    repeated_ = answers_in(choices, circumstances_of(environment(nullptr)));
  } catch (const Error& error) {
    log::warning(std::string("the run's choice of kernels ") + error.what() +
                 "; kernels are chosen anew");
  }
}

KernelEnvironment CpuDevice::environment(Communicator* communicator) const {
  return {.threads = threads_, .isa = isa_, .communicator = communicator, .device = &options_};
}

bool CpuDevice::overlaps(Communicator* communicator) const {
  return overlap && communicator != nullptr && communicator->size() > 1;
}

std::unique_ptr<StateStore> CpuDevice::make_store() {
  return std::make_unique<Store>(threads_);
}

std::unique_ptr<CompileTarget> CpuDevice::target(const Graph&, Communicator* communicator) {
  omp_set_num_threads(threads_);
  const bool reference = kernel_choice == "reference";
  CompileOptions options;
  options.rewrite = !reference;
  options.recompute = recompute;
  if (options_.bf16) options.narrow = DType::bf16;
  options.overlap = overlaps(communicator);
  return std::make_unique<CpuTarget>(kernels_, environment(communicator), std::move(options),
                                     autotune && !reference, repeated_, used_);
}

std::size_t CpuDevice::overhead_bytes(const Program& program) {
  omp_set_num_threads(threads_);
  const std::size_t before = memory_bytes();
  bind_nowhere(program);
#pragma omp parallel
  {
    volatile int here = omp_get_thread_num();  // the threads stand from now on
    static_cast<void>(here);
  }
  const std::size_t after = memory_bytes();
  return after - std::min(after, before);
}

std::unique_ptr<Executable> CpuDevice::compile(Program program, StateStore& store,
                                               Communicator* communicator) {
  omp_set_num_threads(threads_);
  pin_threads(pin, local_rank_, local_ranks_, threads_);
  return std::make_unique<CpuExecutable>(std::move(program), static_cast<Store&>(store), threads_,
                                         overlaps(communicator));
}

}  // namespace ftrain::cpu
