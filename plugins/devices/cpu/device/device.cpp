#include "plugins/devices/cpu/device/device.h"

#include <omp.h>

#include <algorithm>

#include "core/base/process.h"
#include "core/compile/cached.h"
#include "core/compile/fuse.h"
#include "core/compile/merge_updates.h"
#include "core/compile/overlap.h"
#include "core/compile/passes.h"
#include "core/compile/precision.h"
#include "core/compile/recompute.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/device/executable.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/device/layout.h"
#include "plugins/devices/cpu/device/store.h"
#include "plugins/devices/cpu/device/threads.h"
#include "plugins/devices/cpu/onednn/onednn.h"
#include "plugins/devices/cpu/rewrite/depthwise.h"
#include "plugins/devices/cpu/rewrite/fold.h"
#include "plugins/devices/cpu/rewrite/layouts.h"
#include "plugins/devices/cpu/tune/tuner.h"
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

Program CpuDevice::prepare(const Graph& graph, const StateStore* store,
                           Communicator* communicator) {
  omp_set_num_threads(threads_);
  const KernelEnvironment environment = this->environment(communicator);
  Program program;
  program.graph = remove_dead(*merge_common(graph));
  if (kernel_choice != "reference") {
    program.graph = fold(*program.graph, environment);
    program.graph = ftrain::recompute(*program.graph, recompute);
  }
  if (options_.bf16) program.graph = lower_precision(*program.graph, DType::bf16);
  if (kernel_choice != "reference") {
    program.graph = remove_dead(*assign_layouts(*program.graph, kernels_, environment, store));
    program.graph = fuse_depthwise(*program.graph);
    program.graph = remove_dead(*fuse(*program.graph, takes_fused_norms));
    program.graph = merge_updates(*program.graph);
  }
  if (overlaps(communicator)) program.graph = advance_collectives(*program.graph);
  if (kernel_choice != "reference") program.kept = kept_nodes(*program.graph);
  const std::vector<bool> lasting = lasting_nodes(*program.graph, program.kept);

  Tuner tuner(kernels_, environment, repeated_);
  const auto nodes = static_cast<std::size_t>(program.graph->size());
  program.kernels.resize(nodes);
  std::vector<std::size_t> scratch(nodes, 0);
  std::vector<int> overwrites(nodes, -1);
  for (std::size_t n = 0; n < nodes; ++n) {
    const Node& node = program.graph->node(static_cast<std::int32_t>(n));
    if (node.op->leaf || node.op->view) continue;
    program.kernels[n] = autotune && kernel_choice != "reference"
                             ? tuner.choose(node)
                             : kernels_.choose(node, environment);
    // compile() makes the kernel again; oneDNN's cache keeps the costly part.
    const std::unique_ptr<Kernel> kernel = program.kernels[n].def->make(node, environment);
    scratch[n] = kernel->scratch_bytes();
    overwrites[n] = kernel->overwrites();
  }
  used_.insert(tuner.used().begin(), tuner.used().end());
  const std::vector<std::int32_t> busy =
      overlaps(communicator) ? first_waits(*program.graph) : std::vector<std::int32_t>();
  program.plan = plan_memory(
      *program.graph,
      {.scratch = [&](const Node& node) { return scratch[static_cast<std::size_t>(node.index)]; },
       .overwrites =
           [&](const Node& node) { return overwrites[static_cast<std::size_t>(node.index)]; },
       .keep =
           [&](const Node& node) {
             return !lasting.empty() && lasting[static_cast<std::size_t>(node.index)];
           },
       .busy_until =
           [&](const Node& node) {
             return busy.empty() ? node.index : busy[static_cast<std::size_t>(node.index)];
           }});
  return program;
}

std::size_t CpuDevice::overhead_bytes(const Program& program) {
  omp_set_num_threads(threads_);
  const std::size_t before = memory_bytes();
  const std::vector<std::unique_ptr<Kernel>> kernels = bound_nowhere(program, environment(nullptr));
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
  return std::make_unique<CpuExecutable>(std::move(program), static_cast<Store&>(store),
                                         environment(communicator), overlaps(communicator));
}

}  // namespace ftrain::cpu
