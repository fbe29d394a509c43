// A kernel made of oneDNN primitives (and plain functions) that run one after the other.
//
// Built once in a KernelDef's make(): slots name the node's operands and pieces of its scratch,
// steps say what runs on them. launch() executes the steps and waits.
#pragma once

#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "ftrain/device/kernel.h"

namespace ftrain::cpu {

class Sequence final : public Kernel {
 public:
  using Slot = int;

  Sequence();

  // A buffer as `desc` says. Several slots may show one operand in several ways.
  Slot input(int index, const dnnl::memory::desc& desc);
  Slot output(int index, const dnnl::memory::desc& desc);
  Slot scratch(const dnnl::memory::desc& desc);

  // `from` in the order `wanted`: the slot itself, or a piece of scratch that a reorder fills.
  Slot arranged(Slot from, const dnnl::memory::desc& wanted);
  // Where a primitive that writes `made` puts what belongs into `target`; finish() copies it over.
  Slot landing(Slot target, const dnnl::memory::desc& made);
  void finish(Slot landed, Slot target);

  void run(const dnnl::primitive& primitive, const std::unordered_map<int, Slot>& arguments);
  // The primitive's own scratchpad comes with it.
  template <class Desc>
  void run_with_scratchpad(const Desc& desc, const dnnl::primitive& primitive,
                           std::unordered_map<int, Slot> arguments) {
    if (desc.scratchpad_desc().get_size() > 0) {
      arguments[DNNL_ARG_SCRATCHPAD] = scratch(desc.scratchpad_desc());
    }
    run(primitive, arguments);
  }
  // A plain function from one buffer into another.
  void call(Slot from, Slot to, std::function<void(const float*, float*)> function);

  std::size_t scratch_bytes() const override { return scratch_bytes_; }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override;
  void launch() override;

 private:
  enum class Home { input, output, scratch };
  struct Buffer {
    Home home;
    std::size_t place;  // operand's number, or offset in the scratch
    dnnl::memory memory;
  };

  Slot add(Home home, std::size_t place, const dnnl::memory::desc& desc);
  void reorder(Slot from, Slot to);

  std::vector<Buffer> buffers_;
  std::vector<std::function<void()>> steps_;
  std::size_t scratch_bytes_ = 0;
  dnnl::stream stream_;
};

}  // namespace ftrain::cpu
