// Class centers in bf16 and in the host's memory, in whole trainings on the stand-in for a GPU.
#include "program/standin_program.h"

namespace standin {
namespace {

// Two steps kernel by kernel, then the step is recorded and replayed.
class StoredCenters : public Program {
 protected:
  void expect_same_from_host(const std::string& name, Settings settings) const {
    settings.insert(settings.begin(), "run.steps=4");
    train(name, settings);
    settings.push_back("parallelism.centers_memory=host");
    train(name + "_host", settings);
    expect_same_bits(name + "_host", name);
  }
};

TEST_F(StoredCenters, OfTheHostsMemoryAreThoseOfTheDevices) {
  expect_same_from_host("whole", {"parallelism.plugin=model_parallel", "run.accumulate=2"});
  expect_same_from_host("sampled", {"parallelism.plugin=partial_fc", "parallelism.sample_rate=0.5",
                                    "parallelism.centers=bf16", "optimizer.momentum=0.0"});
}

TEST_F(StoredCenters, InBf16FollowTheCpu) {
  train_on_both({"run.steps=4", "launch.processes=2", "parallelism.plugin=partial_fc",
                 "parallelism.sample_rate=0.5", "parallelism.centers=bf16"});
  expect_near("gpu", "cpu", "loss", 1e-2);
}

}  // namespace
}  // namespace standin
