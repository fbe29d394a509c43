#include "plugins/devices/cuda/device/device.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/compile/tuning_cache.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/device/executable.h"
#include "plugins/devices/cuda/device/store.h"
#include "plugins/devices/cuda/rewrite/target.h"
#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {
namespace {

// GPU memory of a program beside its states and its arena.
std::size_t input_bytes(const Graph& graph) {
  const std::size_t bytes = place_inputs(graph).bytes;
  return bytes + Uploads::device_bytes(bytes);
}

// Before anything is taken, so that the message can say all of it.
void check_memory(const Program& program, const Store& store, const Gpu& gpu) {
  const std::size_t states = store.missing_bytes(program.graph->states());
  const std::size_t inputs = input_bytes(*program.graph);
  const std::size_t arena = store.workspace_bytes(program.plan.arena_bytes);
  const std::size_t needed = states + inputs + arena;
  const FreeMemory memory = free_memory();
  // Kernels' code is loaded as they are first run.
  const std::size_t code = memory.total / 512;
  if (needed + code <= memory.free) return;
  throw OutOfMemoryError(
      "GPU " + std::to_string(gpu.index) + ", " + gpu.name +
          ", has too little memory: the program needs " + bytes_text(needed) + " (" +
          bytes_text(states) + " of states, " + bytes_text(inputs) + " of inputs, " +
          bytes_text(arena) + " of activations and other values of a step), and of the GPU's " +
          bytes_text(memory.total) + " there are " + bytes_text(memory.free) + " free",
      needed, memory.free);
}

}  // namespace

void CudaDevice::configure(Keys& keys) {
  keys.bind("gpu", gpu,
            "which of the GPUs that the process sees, from 0; -1: the one with the rank's number "
            "on its machine",
            at_least(-1));
  std::vector<std::string> assumed = assumed_names();
  assumed.insert(assumed.begin(), "none");
  keys.bind("assume", assume,
            "plan for a GPU of this kind, which need not be there, without cuDNN and cuBLASLt; "
            "nothing can be run",
            one_of(std::move(assumed)));
  keys.bind("precision", precision,
            "what convolutions and activations are in: fp32 (auto too); tf32: fp32 that tensor "
            "cores round when they multiply; bf16; fp16, with a loss that is scaled; parameters, "
            "statistics and losses are fp32, and evaluation is in tf32 unless this is fp32",
            one_of({"auto", "fp32", "tf32", "bf16", "fp16"}));
  keys.bind("loss_scale", scaling.initial, "of precision fp16: what the loss is scaled by at first",
            above(0));
  keys.bind("loss_scale_interval", scaling.interval,
            "of precision fp16: after so many good steps the scale doubles", at_least(1));
  keys.bind("kernels", kernel_choice, "auto: the fastest; own: none of cuDNN's and cuBLASLt's",
            one_of({"auto", "own"}));
  keys.bind("autotune", autotune,
            "choose cuDNN's and cuBLASLt's algorithms by measuring them, once on a kind of GPU; "
            "false: as their heuristics say");
  keys.bind("recompute", recompute,
            "activations to make again in the backward walk instead of keeping them: none; cheap: "
            "batch norms and PReLUs; block: all within a block of the network",
            one_of({"none", "cheap", "block"}));
  keys.bind("overlap", overlap, "collectives run beside the kernels, on a stream of their own");
  keys.bind("capture", capture,
            "record the step after two runs and replay it; false: enqueue it kernel by kernel");
  keys.bind("check", check,
            "wait after each kernel, so that one that fails on the GPU is named; slow");
}

void CudaDevice::open(int local_rank, int local_ranks) {
  machine_.reset();
  const bool assumed = assume != "none";
  machine_ = std::make_unique<Machine>(
      assumed ? assumed_gpu(assume) : find_gpu(gpu, local_rank, local_ranks),
      Machine::Rounding{.training = precision == "tf32",
                        .evaluation = precision != "fp32" && precision != "auto"});
  kernels_ = {};
  add_pointwise_kernels(kernels_);
  add_reduction_kernels(kernels_);
  add_update_kernels(kernels_);
  add_normalization_kernels(kernels_);
  add_depthwise_kernels(kernels_);
  add_class_center_kernels(kernels_);
  add_product_kernels(kernels_);
  add_collective_kernels(kernels_);
  if (kernel_choice == "own" || assumed) return;
  Machine& m = *machine_;
  m.cudnn = open_cudnn(
      {.gpu = m.gpu.name, .driver = m.gpu.driver, .autotune = autotune, .file = plans_file()});
  m.cublas = open_cublas({.gpu = m.gpu.name,
                          .driver = m.gpu.driver,
                          .autotune = autotune,
                          .file = cache_file("cublaslt.json")});
  m.set_libraries();
  if (m.cudnn) add_cudnn_kernels(kernels_);
  if (m.cublas) add_cublas_kernels(kernels_);
}

Machine& CudaDevice::machine() {
  if (!machine_) throw DeviceError("the CUDA device is used before it is opened");
  machine_->gpu.use();
  return *machine_;
}

std::string CudaDevice::summary() const {
  if (!machine_) return "CUDA";
  return machine_->gpu.text() +
         (machine_->cudnn ? ", cuDNN " + machine_->cudnn->version() : ", without cuDNN") +
         (machine_->cublas ? ", cuBLASLt " + machine_->cublas->version() : ", without cuBLASLt") +
         ", " + (precision == "auto" ? "fp32" : precision);
}

std::optional<LossScaling> CudaDevice::loss_scaling() const {
  return precision == "fp16" ? std::optional(scaling) : std::nullopt;
}

std::string CudaDevice::choices() const {
  if (!machine_) return {};
  nlohmann::ordered_json all;
  const auto put = [&](const char* library, const std::string& text) {
    if (text.empty()) return;
    nlohmann::ordered_json choices = nlohmann::ordered_json::parse(text, nullptr, false);
    all[library] = choices.is_discarded() ? nlohmann::ordered_json(text) : std::move(choices);
  };
  if (machine_->cudnn) put("cudnn", machine_->cudnn->choices());
  if (machine_->cublas) put("cublaslt", machine_->cublas->choices());
  return all.empty() ? "" : all.dump(2) + "\n";
}

void CudaDevice::repeat(std::string_view choices) {
  if (choices.empty()) return;
  try {
    const auto all = nlohmann::ordered_json::parse(choices, nullptr, false);
    if (!all.is_object()) throw DataError("is not the CUDA device's");
    const auto text = [&](const char* library) {
      const auto found = all.find(library);
      if (found == all.end()) return std::string();
      return found->is_string() ? found->get<std::string>() : found->dump(2);
    };
    const std::string cudnn = text("cudnn"), cublas = text("cublaslt");
    if (machine().cudnn && !cudnn.empty()) machine_->cudnn->repeat(cudnn);
    if (machine().cublas && !cublas.empty()) machine_->cublas->repeat(cublas);
  } catch (const DataError& error) {
    log::warning(std::string("the run's choice of kernels ") + error.what() +
                 "; kernels are chosen anew");
  }
}

bool CudaDevice::overlaps(Communicator* communicator) const {
  return overlap && communicator != nullptr && communicator->size() > 1;
}

std::unique_ptr<StateStore> CudaDevice::make_store() {
  return std::make_unique<Store>(machine());
}

std::unique_ptr<CompileTarget> CudaDevice::target(const Graph& program,
                                                  Communicator* communicator) {
  const Machine& m = machine();
  return std::make_unique<CudaTarget>(
      kernels_, m.context_of(program), m.beside, communicator,
      TargetOptions{.precision = precision == "auto" ? "fp32" : precision,
                    .recompute = recompute,
                    .advance = overlaps(communicator)});
}

std::size_t CudaDevice::overhead_bytes(const Program& program) {
  return input_bytes(*program.graph) - place_inputs(*program.graph).bytes;
}

std::unique_ptr<Executable> CudaDevice::compile(Program program, StateStore& store,
                                                Communicator* communicator) {
  if (machine().gpu.assumed) {
    throw DeviceError("[device] assume = \"" + assume +
                      "\" is for plans; set it to \"none\" to run the job");
  }
  Store& mine = static_cast<Store&>(store);
  check_memory(program, mine, machine().gpu);
  return std::make_unique<CudaExecutable>(
      std::move(program), mine, *machine_, communicator,
      RunOptions{.overlap = overlaps(communicator), .capture = capture, .check = check});
}

}  // namespace ftrain::cuda
