// Plans of cuDNN for one convolution: which there are, which of them may be used, and one made
// ready.
//
// Only plans that give the same bits every time are used, and only those that sum in fp32 what they
// were given: cuDNN's numerical notes say so of every engine.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plugins/devices/cuda/cudnn/descriptor.h"
#include "plugins/devices/cuda/ops/convolution_types.h"

namespace ftrain::cuda {

// A dense convolution or one of its gradients.
struct ConvolutionProblem {
  enum class Direction { forward, input_grad, weight_grad };

  // Of conv2d, conv2d_input_grad or conv2d_weight_grad that cuDNN can be asked for.
  ConvolutionProblem(const Node& node, bool tf32);

  Direction direction = Direction::forward;
  TensorType x, w, y;
  std::int64_t stride = 1, padding = 0;
  bool tf32 = false;  // f32 operands may be rounded to tf32
  std::string name;   // "conv2d stride=1 ... (f32[...], ...) -> f32[...], tf32"
};

// Names of the operands in plans.
enum OperandId : std::int64_t { x_id = 'x', w_id = 'w', y_id = 'y' };

// For which device plans are made: the current one, by cuDNN's handle; or one that is only
// described, in cuDNN's JSON for properties of a device.
class Target {
 public:
  explicit Target(cudnnHandle_t handle) : handle_(handle) {}
  explicit Target(const std::string& description);

  // Name the device to a descriptor: one of both does, the other nothing.
  void set_handle(Descriptor& descriptor, cudnnBackendAttributeName_t name) const;
  void set_properties(Descriptor& descriptor, cudnnBackendAttributeName_t name) const;

 private:
  cudnnHandle_t handle_ = nullptr;
  std::optional<Descriptor> properties_;
};

// An engine of cuDNN's and its settings.
struct PlanChoice {
  std::int64_t engine = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> knobs;  // type, value; by type

  std::string text() const;  // "engine 38, knobs 1=3 2=17"
  // Empty when the text is none.
  static std::optional<PlanChoice> from(std::string_view text);
  bool operator==(const PlanChoice&) const = default;
};

// Why an engine is not used for a problem, by its notes; empty: it may be.
std::string refuse_engine(const ConvolutionProblem& problem,
                          const std::vector<cudnnBackendNumericalNote_t>& notes);

class Plan {
 public:
  // `configuration` and `graph`: what the plan was made of lives as long.
  Plan(Descriptor descriptor, Descriptor configuration, std::shared_ptr<const Descriptor> graph,
       PlanChoice choice)
      : graph_(std::move(graph)),
        configuration_(std::move(configuration)),
        descriptor_(std::move(descriptor)),
        choice_(std::move(choice)),
        workspace_(static_cast<std::size_t>(
            descriptor_.integer(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE))) {}
  const PlanChoice& choice() const { return choice_; }
  std::size_t workspace() const { return workspace_; }  // bytes
  cudnnBackendDescriptor_t get() const { return descriptor_.get(); }

 private:
  std::shared_ptr<const Descriptor> graph_;
  Descriptor configuration_, descriptor_;
  PlanChoice choice_;
  std::size_t workspace_;
};

// Where operands and workspace of a plan lie.
Descriptor variant_pack(void* x, void* w, void* y, void* workspace);

// A problem as cuDNN's graph of one operation. The target outlives it.
class ConvolutionGraph {
 public:
  ConvolutionGraph(const ConvolutionProblem& problem, const Target& target);

  // What cuDNN's heuristics name and may be used, the most promising first.
  std::vector<PlanChoice> candidates() const;
  // Why the others were not, each reason once.
  const std::vector<std::string>& refused() const { return refused_; }
  // nullptr: cuDNN has no such plan for this graph and target, or it may not be used.
  std::unique_ptr<Plan> make(const PlanChoice& choice) const;

 private:
  void take(const Descriptor& configuration, std::vector<PlanChoice>& choices) const;

  const ConvolutionProblem& problem_;
  const Target& target_;
  std::shared_ptr<const Descriptor> graph_;
  mutable std::vector<std::string> refused_;
};

}  // namespace ftrain::cuda
