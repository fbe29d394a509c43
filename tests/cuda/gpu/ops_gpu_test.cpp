// Every kernel on every row of the op table, on a real GPU.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "gpu_fixture.h"
#include "tests/cuda/device_payloads.h"
#include "tests/cuda/shape_cases.h"

namespace ftrain::cuda {
namespace {

class GpuOps : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped()) put_payloads_on_device();
  }
};

std::set<std::string> check_all(const std::vector<cpu::OpCase>& rows,
                                const GpuPrecision& precision) {
  std::set<std::string> reached;
  const Machine& machine = gpu_machine(precision.tf32);
  for (const cpu::OpCase& row : rows) {
    SCOPED_TRACE(row.name + " in " + precision.name);
    each_node(row, precision.dtype, [&](cpu::LoneNode& lone) {
      each_gpu_kernel(lone, machine, [&](const KernelDef& def) {
        reached.insert(std::string(def.op) + " by " + std::string(def.name));
        // Here rounded products go through a softmax into further ones.
        const bool chained = precision.tf32 && def.op.starts_with("class_center");
        const double closeness = (chained ? 5 : 1) * precision.closeness;
        try {
          check_on_gpu(lone, def, machine, closeness);
          if (def.make(lone.node(), environment_of(machine))->overwrites() < 0) return;
          SCOPED_TRACE("in place");
          check_on_gpu(lone, def, machine, closeness, true);
        } catch (const std::exception& error) {
          ADD_FAILURE() << error.what();
        }
      });
    });
  }
  return reached;
}

TEST_F(GpuOps, KernelsAgreeWithThePlainOne) {
  std::set<std::string> reached;
  for (const GpuPrecision& precision : gpu_precisions) {
    reached.merge(check_all(cpu::op_cases(), precision));
    reached.merge(check_all(shape_cases(), precision));
  }
  for (const KernelDef& def : gpu_kernels().all()) {
    if (def.op == "reorder") continue;  // between orders, which rows of the table do not mix
    const std::string name = std::string(def.op) + " by " + std::string(def.name);
    EXPECT_TRUE(reached.contains(name)) << name;
  }
}

}  // namespace
}  // namespace ftrain::cuda
