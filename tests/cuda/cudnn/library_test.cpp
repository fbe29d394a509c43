// What becomes of choices that were kept, why convolutions are refused, and what errors say.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "described.h"
#include "ftrain/base/error.h"
#include "plugins/devices/cuda/ops/kernels.h"

namespace ftrain::cuda {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

const DenseConvolution block{{128, 64, 56, 56}, {64, 64, 3, 3}, 1, 1};

std::unique_ptr<CudnnLibrary> library_for(const DescribedGpu& gpu) {
  return std::make_unique<CudnnLibrary>(options_for(gpu), gpu.description());
}

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const DeviceError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

class CudnnChoices : public testing::Test {
 protected:
  CudnnChoices() : lone(block, DType::bf16, "conv2d_weight_grad"), problem(lone.node(), false) {}

  // Choices that say `kernel` of the problem.
  std::string saying(const std::string& kernel, const char* gpu = h200.name) const {
    return text_of({{problem.name, {kernel, {}}}},
                   {gpu, "cuDNN " + cudnn_version() + ", driver 13.0"});
  }
  PlanChoice first() const { return library_for(h200)->plan_for(problem)->choice(); }

  ConvolutionNode lone;
  ConvolutionProblem problem;
};

TEST_F(CudnnChoices, AreThoseTaken) {
  const auto library = library_for(h200);
  EXPECT_EQ(library->choices(), "");
  const auto plan = library->plan_for(problem);
  EXPECT_EQ(library->choices(), saying(plan->choice().text()));
}

TEST_F(CudnnChoices, AreTakenAgain) {
  const Target target(h200.description());
  const ConvolutionGraph graph(problem, target);
  PlanChoice other = first();
  for (const PlanChoice& candidate : graph.candidates()) {
    if (candidate != first() && graph.make(candidate)) other = candidate;
  }
  ASSERT_NE(other, first());
  const auto library = library_for(h200);
  library->repeat(saying(other.text()));
  EXPECT_EQ(library->plan_for(problem)->choice(), other);
  EXPECT_EQ(library->choices(), saying(other.text()));
}

TEST_F(CudnnChoices, OfAnotherMachineArePassedOver) {
  const auto library = library_for(h200);
  library->repeat(saying("engine 0", "NVIDIA A100-SXM4-80GB"));
  EXPECT_EQ(library->plan_for(problem)->choice(), first());
}

TEST_F(CudnnChoices, ThatAreNoneOfCudnnsArePassedOverWithAWarning) {
  for (const char* kernel : {"engine 99999", "engine 1, knobs 77=1", "something else"}) {
    const auto library = library_for(h200);
    library->repeat(saying(kernel));
    testing::internal::CaptureStderr();
    EXPECT_EQ(library->plan_for(problem)->choice(), first());
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                AllOf(HasSubstr(kernel), HasSubstr("conv2d_weight_grad stride=1 padding=1"),
                      HasSubstr("is no plan that cuDNN")));
  }
}

// Plans that may not be used cannot come in by a file either.
TEST_F(CudnnChoices, DoNotBringInWhatIsRefused) {
  ConvolutionNode f32(block, DType::f32, "conv2d");
  const ConvolutionProblem tf32_problem(f32.node(), true), f32_problem(f32.node(), false);
  const Target target(h200.description());
  const ConvolutionGraph with(tf32_problem, target), without(f32_problem, target);
  int refused = 0;
  for (const PlanChoice& choice : with.candidates()) {
    refused += with.make(choice) != nullptr && without.make(choice) == nullptr;
  }
  EXPECT_GT(refused, 0);
  EXPECT_THAT(without.refused(), IsEmpty());
  static_cast<void>(without.candidates());
  EXPECT_THAT(without.refused(), testing::Contains("rounds f32 operands to tf32"));
}

TEST_F(CudnnChoices, ThatAreNoneAreAnError) {
  EXPECT_THROW(library_for(h200)->repeat("["), DataError);
}

class CudnnKernels : public testing::Test {
 protected:
  CudnnKernels() : library(library_for(h200)) {
    context.cudnn = library.get();
    environment.device = &context;
    add_cudnn_kernels(list);
  }
  std::string refusal(ConvolutionNode& lone) {
    const auto kernels = list.of(lone.node().op->name);
    return kernels.at(0)->refuse(lone.node(), environment);
  }

  std::unique_ptr<CudnnLibrary> library;
  Context context;
  KernelEnvironment environment;
  KernelList list;
};

TEST_F(CudnnKernels, TakeDenseConvolutions) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const char* op : ops_of_convolution) {
      ConvolutionNode lone(block, dtype, op);
      EXPECT_EQ(refusal(lone), "") << op << " in " << name_of(dtype);
    }
  }
}

TEST_F(CudnnKernels, RefuseWhatIsNotTheirs) {
  ConvolutionNode grouped({{8, 64, 14, 14}, {64, 1, 3, 3}, 1, 1}, DType::f32, "conv2d", 64);
  EXPECT_EQ(refusal(grouped), "is for dense convolutions, not groups = 64");
  ConvolutionNode plain(block, DType::f32, "conv2d", 1, row_major);
  EXPECT_EQ(refusal(plain), "wants channels-last operands, not f32[128, 64, 56, 56]");
  ConvolutionNode doubles(block, DType::f64, "conv2d");
  EXPECT_THAT(refusal(doubles), StartsWith("is for f32, bf16 and f16, not f64"));
  ConvolutionNode master(block, DType::bf16, "conv2d");
  master.graph.node(1).outputs[0].dtype = DType::f32;
  EXPECT_THAT(refusal(master), StartsWith("wants activations in one type and weights in bf16"));
  ConvolutionNode narrow(block, DType::bf16, "conv2d_weight_grad");
  narrow.node().outputs[0].dtype = DType::bf16;
  EXPECT_THAT(refusal(narrow), StartsWith("wants activations in one type and weights in f32"));
  context.cudnn = nullptr;
  ConvolutionNode dense(block, DType::f32, "conv2d");
  EXPECT_EQ(refusal(dense), "cuDNN is not there");
}

TEST_F(CudnnKernels, RefuseWhatCudnnHasNoPlanFor) {
  DescribedGpu turing = h200;
  turing.architecture = 750;
  const auto old = library_for(turing);
  context.cudnn = old.get();
  ConvolutionNode lone(block, DType::bf16, "conv2d_weight_grad");
  const std::string reason = refusal(lone);
  EXPECT_THAT(reason, AllOf(HasSubstr("has no plan for conv2d_weight_grad stride=1 padding=1"),
                            HasSubstr("bf16[128, 64, 56, 56]:nhwc"), HasSubstr("1024 MiB")));
  EXPECT_EQ(refusal(lone), reason) << "is known";
  ConvolutionNode impossible(block, DType::bf16, "conv2d");
  impossible.node().outputs[0].shape = {128, 64, 55, 55};
  EXPECT_THAT(refusal(impossible), AllOf(HasSubstr("cannot describe conv2d stride=1 padding=1"),
                                         HasSubstr("CUDNN_STATUS_BAD_PARAM")));
}

TEST_F(CudnnKernels, StayWithinTheirWorkspace) {
  CudnnOptions options = options_for(h200);
  options.workspace_limit = std::size_t{1} << 20;
  CudnnLibrary narrow(options, h200.description());
  ConvolutionNode lone({{128, 3, 112, 112}, {64, 3, 3, 3}, 1, 1}, DType::bf16,
                       "conv2d_weight_grad");
  const ConvolutionProblem problem(lone.node(), false);
  EXPECT_GT(library->plan_for(problem)->workspace(), options.workspace_limit);
  EXPECT_LE(narrow.plan_for(problem)->workspace(), options.workspace_limit);
}

// The gradient of weights is made in 16 bits beside the workspace and then widened.
TEST_F(CudnnKernels, HaveScratchForTheWorkspaceAndNarrowGradients) {
  for (const char* op : ops_of_convolution) {
    ConvolutionNode lone(block, DType::bf16, op);
    const auto plan = library->plan_for(ConvolutionProblem(lone.node(), false));
    const auto kernel = list.of(op).at(0)->make(lone.node(), environment);
    const std::size_t gradient = op == ops_of_convolution[2] ? 64 * 64 * 9 * 2 : 0;
    EXPECT_GE(kernel->scratch_bytes(), plan->workspace() + gradient);
    EXPECT_LE(kernel->scratch_bytes(), plan->workspace() + gradient + 1024);
    alignas(256) static char memory[4];
    void* const address = memory;
    const std::vector<void*> inputs{address, address};
    EXPECT_NO_THROW(kernel->bind(inputs, {&address, 1}, memory));
  }
}

bool has_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

TEST(CudnnErrors, SayWhichConvolution) {
  if (has_gpu()) GTEST_SKIP() << "on a GPU the convolution would be done";
  ConvolutionNode lone(block, DType::f32, "conv2d");
  const auto library = library_for(h200);
  const ConvolutionProblem problem(lone.node(), false);
  const auto plan = library->plan_for(problem);
  char memory[4];
  const Descriptor pack = variant_pack(memory, memory, memory, memory);
  EXPECT_THAT(message_of([&] { library->execute(*plan, pack, nullptr, problem.name); }),
              AllOf(StartsWith("cuDNN " + cudnn_version() + " cannot do conv2d stride=1"),
                    HasSubstr("f32[64, 64, 3, 3]:nhwc"), HasSubstr("by engine"),
                    HasSubstr("CUDNN_STATUS_BAD_PARAM")));
}

TEST(CudnnErrors, SayWhatCudnnSays) {
  EXPECT_THAT(message_of([] { Target("{}"); }),
              AllOf(HasSubstr("cannot read the description of a device: CUDNN_STATUS_BAD_PARAM"),
                    HasSubstr("maxGridSize")));
}

TEST(CudnnErrors, WithoutAGpuSayIt) {
  if (has_gpu()) GTEST_SKIP() << "there is a GPU";
  EXPECT_THAT(message_of([] { open_cudnn(options_for(h200)); }),
              HasSubstr("cannot begin on this GPU: CUDNN_STATUS_NOT_INITIALIZED"));
}

}  // namespace
}  // namespace ftrain::cuda
