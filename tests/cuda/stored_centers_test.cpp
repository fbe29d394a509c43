// Class centers in bf16 and in the host's memory on the stand-in for a GPU: to the bit what they
// are in f32 but for the rounding, and in the device's memory.
#include "tests/plugins/devices/cpu/stored_centers.h"

#include <gtest/gtest.h>

#include "ftrain/model/optimizer.h"
#include "ftrain/optimizer/device_update.h"
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/devices/cuda/runtime/check.h"
#include "plugins/devices/cuda/runtime/stream.h"
#include "plugins/optimizers/sgd.h"
#include "tests/cuda/device_payloads.h"
#include "tests/plugins/devices/cpu/case_payloads.h"

namespace ftrain::cuda {
namespace {

using cpu::StoredCase;
using cpu::StoredResults;

// What is not a class-center op is done by the CPU.
const KernelList& kernels() {
  static const KernelList list = [] {
    put_payloads_on_device();
    KernelList made;
    cpu::add_reference_kernels(made);
    add_class_center_kernels(made);
    return made;
  }();
  return list;
}

class PlainStep final : public Update {
 public:
  PlainStep() {
    functor = &formula_;
    cuda = device_update<PlainSgd>();
  }
  std::string text() const override { return "plain step"; }

 private:
  PlainSgd formula_;
};

std::shared_ptr<const Payload> update_of(const StoredCase& c) {
  kernels();
  if (!c.slots) return std::make_shared<PlainStep>();
  return std::make_shared<cpu::MomentumUpdate>();
}

std::shared_ptr<const Payload> margin() {
  kernels();
  return std::make_shared<cpu::TestMargin>(false, true);
}

// Tiles of 64 rows.
constexpr Context small_tiles{{.multiprocessors = 4}, nullptr, 1};
constexpr Context one_tile{{.multiprocessors = 132}};

TEST(CudaStoredCenters, InBf16AreF32ButForTheRounding) {
  for (const StoredCase& c : cpu::stored_cases()) {
    cpu::expect_rounded_f32(c, kernels(), {.isa = {}, .device = &small_tiles}, "", margin(),
                            update_of(c));
  }
  const StoredCase c{.sampled = true};
  cpu::expect_rounded_f32(c, kernels(), {.isa = {}, .device = &one_tile}, "", margin(),
                          update_of(c));
}

// A device's two streams, and all memory of the tests pinned, as copies in a stream want it.
struct Streams {
  Streams() {
    cpu::GuardedBuffer::made = [](void* memory, std::size_t bytes) {
      check(cudaHostRegister(memory, bytes, cudaHostRegisterDefault), "pinning");
    };
    cpu::GuardedBuffer::freed = [](void* memory) { cudaHostUnregister(memory); };
  }
  ~Streams() {
    cpu::GuardedBuffer::made = {};
    cpu::GuardedBuffer::freed = {};
  }
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  Stream main, copies;
  Context context{{.stream = main, .multiprocessors = 4}, copies, 1};  // tiles of 64 rows

  KernelEnvironment environment() const { return {.isa = {}, .device = &context}; }
  void run(Kernel& kernel) const {
    kernel.launch();
    finish(main, "running a kernel");
  }
  // Captured once, replayed once.
  void replay(Kernel& kernel) const {
    cudaGraph_t graph{};
    cudaGraphExec_t made{};
    check(cudaStreamBeginCapture(main, cudaStreamCaptureModeThreadLocal), "capturing");
    kernel.launch();
    check(cudaStreamEndCapture(main, &graph), "capturing");
    check(cudaGraphInstantiate(&made, graph, 0), "capturing");
    check(cudaGraphDestroy(graph), "capturing");
    check(cudaGraphLaunch(made, main), "replaying");
    finish(main, "replaying");
    check(cudaGraphExecDestroy(made), "replaying");
  }
};

TEST(CudaStoredCenters, InTheHostsMemoryAreThoseOfTheDevices) {
  const Streams streams;
  for (StoredCase c : cpu::stored_cases()) {
    c.batch = 5;
    for (const bool bf16 : {false, true}) {
      c.bf16 = bf16;
      c.host = false;
      const StoredResults want = cpu::run_stored(c, kernels(), {.isa = {}, .device = &small_tiles},
                                                 "", margin(), update_of(c));
      c.host = true;
      SCOPED_TRACE(c.text());
      for (const bool captured : {false, true}) {
        const auto got = cpu::run_stored(
            c, kernels(), streams.environment(), "", margin(), update_of(c),
            [&](Kernel& kernel) { captured ? streams.replay(kernel) : streams.run(kernel); });
        for (const auto& [name, values] : want) EXPECT_EQ(got.at(name), values) << name;
      }
      // Without a second stream.
      const StoredResults alone = cpu::run_stored(c, kernels(), {.isa = {}, .device = &small_tiles},
                                                  "", margin(), update_of(c));
      EXPECT_EQ(alone, want);
    }
  }
}

}  // namespace
}  // namespace ftrain::cuda
