// Plans of the real cuDNN for GPUs that are described only: for every dense convolution of the
// networks, in each precision and direction.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>

#include "described.h"
#include "ftrain/base/error.h"

namespace ftrain::cuda {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* networks[] = {
    "plugin = \"iresnet\"\ndepth = 18", "plugin = \"iresnet\"\ndepth = 50",
    "plugin = \"iresnet\"\ndepth = 100", "plugin = \"mobilefacenet\"\nscale = 1",
    "plugin = \"mobilefacenet\"\nscale = 2"};

std::vector<DenseConvolution> convolutions() {
  std::vector<DenseConvolution> all;
  for (const char* network : networks) add_convolutions(network, 128, all);
  return all;
}

std::vector<cudnnBackendNumericalNote_t> notes_of(const Plan& plan) {
  Descriptor configuration(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  std::int64_t count = 0;
  cudnnBackendDescriptor_t raw = configuration.get();
  check_cudnn(cudnnBackendGetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw),
              "say a plan's engine");
  raw = engine.get();
  check_cudnn(cudnnBackendGetAttribute(configuration.get(), CUDNN_ATTR_ENGINECFG_ENGINE,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw),
              "say a plan's engine");
  return engine.read<cudnnBackendNumericalNote_t>(
      CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
}

struct Precision {
  const char* name;
  DType dtype;
  bool tf32;
};
void PrintTo(const Precision& precision, std::ostream* out) {
  *out << precision.name;
}
constexpr Precision precisions[] = {{"fp32", DType::f32, false},
                                    {"tf32", DType::f32, true},
                                    {"bf16", DType::bf16, false},
                                    {"fp16", DType::f16, false}};

class CudnnPlans : public testing::TestWithParam<std::tuple<DescribedGpu, Precision>> {};

TEST_P(CudnnPlans, AreMadeForEveryConvolutionOfTheNetworks) {
  const auto& [gpu, precision] = GetParam();
  CudnnOptions options = options_for(gpu);
  CudnnLibrary library(options, gpu.description());
  const Target target(gpu.description());
  for (const DenseConvolution& convolution : convolutions()) {
    for (const char* op : ops_of_convolution) {
      ConvolutionNode lone(convolution, precision.dtype, op);
      const ConvolutionProblem problem(lone.node(), precision.tf32);
      SCOPED_TRACE(problem.name);
      std::shared_ptr<const Plan> plan;
      ASSERT_NO_THROW(plan = library.plan_for(problem));
      EXPECT_LE(plan->workspace(), options.workspace_limit);
      EXPECT_EQ(library.plan_for(problem), plan) << "is made once";

      const auto notes = notes_of(*plan);
      const auto has = [&](cudnnBackendNumericalNote_t note) {
        return std::find(notes.begin(), notes.end(), note) != notes.end();
      };
      EXPECT_FALSE(has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC));
      EXPECT_FALSE(has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION));
      if (precision.dtype == DType::f32) {
        EXPECT_FALSE(has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS));
        EXPECT_TRUE(precision.tf32 || !has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE));
      } else if (convolution.x[1] % 8 == 0 && convolution.w[2] > 1) {
        EXPECT_TRUE(has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE)) << "what 16 bits are for";
      }
      // The same plan from its text.
      const std::optional<PlanChoice> choice = PlanChoice::from(plan->choice().text());
      ASSERT_TRUE(choice);
      EXPECT_EQ(*choice, plan->choice());
      const auto again = ConvolutionGraph(problem, target).make(*choice);
      ASSERT_NE(again, nullptr);
      EXPECT_EQ(again->workspace(), plan->workspace());
    }
  }
}

std::string called(const testing::TestParamInfo<CudnnPlans::ParamType>& info) {
  const auto& [gpu, precision] = info.param;
  return std::string(gpu.architecture == 900 ? "h200_" : "a100_") + precision.name;
}

INSTANTIATE_TEST_SUITE_P(Hopper, CudnnPlans,
                         testing::Combine(testing::Values(h200), testing::ValuesIn(precisions)),
                         called);
// The same engines do both 16-bit types here.
INSTANTIATE_TEST_SUITE_P(Ampere, CudnnPlans,
                         testing::Combine(testing::Values(a100),
                                          testing::Values(precisions[0], precisions[2])),
                         called);

const DenseConvolution block{{128, 64, 56, 56}, {64, 64, 3, 3}, 1, 1};

TEST(CudnnPlanDescription, IsWhatTheNodeSays) {
  ConvolutionNode lone({{128, 64, 56, 56}, {96, 64, 3, 3}, 2, 1}, DType::bf16, "conv2d");
  const ConvolutionProblem problem(lone.node(), false);
  const Target target(h200.description());
  const ConvolutionGraph graph(problem, target);
  const auto candidates = graph.candidates();
  ASSERT_FALSE(candidates.empty());
  const auto plan = graph.make(candidates[0]);
  ASSERT_NE(plan, nullptr);
  std::string json(1 << 20, '\0');
  std::int64_t count = 0;
  check_cudnn(cudnnBackendGetAttribute(plan->get(), CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                       CUDNN_TYPE_CHAR, static_cast<std::int64_t>(json.size()),
                                       &count, json.data()),
              "write a plan");
  json.resize(static_cast<std::size_t>(count));
  const auto has = [](const char* dimensions, const char* strides) {
    return HasSubstr("\"dim\":" + std::string(dimensions) + ",\"stride\":" + strides);
  };
  EXPECT_THAT(
      json, AllOf(has("[128,64,56,56]", "[200704,1,3584,64]"), has("[96,64,3,3]", "[576,1,192,64]"),
                  has("[128,96,28,28]", "[75264,1,2688,96]"), HasSubstr("\"CUDNN_DATA_BFLOAT16\""),
                  HasSubstr("\"mode\":\"CUDNN_CROSS_CORRELATION\""),
                  HasSubstr("\"mathPrec\":\"CUDNN_DATA_FLOAT\""),
                  HasSubstr("\"pad\":[1,1],\"stride\":[2,2],\"dilation\":[1,1]")));
}

TEST(CudnnPlanChoice, IsReadFromItsTextAlone) {
  const PlanChoice choice{38, {{1, 3}, {13, 0}}};
  EXPECT_EQ(choice.text(), "engine 38, knobs 1=3 13=0");
  EXPECT_EQ(PlanChoice::from(choice.text()), choice);
  EXPECT_EQ(PlanChoice::from("engine 7"), (PlanChoice{7, {}}));
  for (const char* text : {"", "engine", "engine x", "engine 1,", "engine 1, knobs 2", "oneDNN",
                           "engine 1, knobs 2=", "engine 1, knobs 2=3,4=5", "engine 1 "}) {
    EXPECT_FALSE(PlanChoice::from(text)) << text;
  }
}

TEST(CudnnEngines, ThatRoundMoreOrDependOnTimeAreRefused) {
  ConvolutionNode f32_node(block, DType::f32, "conv2d"), bf16_node(block, DType::bf16, "conv2d");
  const ConvolutionProblem f32(f32_node.node(), false), tf32(f32_node.node(), true),
      bf16(bf16_node.node(), true);
  for (const ConvolutionProblem* problem : {&f32, &tf32, &bf16}) {
    EXPECT_EQ(refuse_engine(*problem, {}), "");
    EXPECT_EQ(refuse_engine(*problem, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}),
              "is not deterministic");
    EXPECT_EQ(refuse_engine(*problem, {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION}),
              "sums in less than fp32");
    EXPECT_EQ(refuse_engine(*problem, {CUDNN_NUMERICAL_NOTE_WINOGRAD}),
              "rounds more than the plain sum");
  }
  EXPECT_EQ(refuse_engine(f32, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}), "rounds f32 operands to tf32");
  EXPECT_EQ(refuse_engine(tf32, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}), "");
  EXPECT_EQ(refuse_engine(bf16, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}), "");
  EXPECT_EQ(refuse_engine(tf32, {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}),
            "rounds f32 operands to 16 bits");
}

}  // namespace
}  // namespace ftrain::cuda
