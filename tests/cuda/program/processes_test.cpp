// Ranks as processes, each with a stand-in of its own: their tensors travel through the host's
// memory by whatever connects the processes, to the bits of ranks that are threads.
#include <filesystem>

#include "program/standin_program.h"

namespace standin {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Processes : public Program {
 protected:
  static Settings by(const std::string& communicator) {
    return {"run.steps=4",
            "launch.processes=2",
            "launch.communicator=" + communicator,
            "parallelism.plugin=partial_fc",
            "parallelism.sample_rate=0.5",
            "parallelism.features=bf16"};
  }
};

TEST_F(Processes, HaveTheBitsOfThreads) {
  train("threads", by("local"));
  train("sockets", by("tcp"));
  expect_same_bits("sockets", "threads");
}

// The stand-in's GPU is none to NCCL.
TEST_F(Processes, AreToldByNcclWhoHasNoGpu) {
  if (!std::filesystem::exists(FTRAIN_PLUGINS "/nccl.so")) GTEST_SKIP() << "built without NCCL";
  if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "there may be a GPU here";
  const Result result = try_to_train("nccl", by("nccl"));
  EXPECT_EQ(result.code, 4);
  EXPECT_THAT(result.err, AllOf(HasSubstr("DeviceError: rank 0 on "),
                                HasSubstr(" has no GPU, and NCCL exchanges between GPUs")));
}

}  // namespace
}  // namespace standin
