#include "plugins/devices/cuda/cudnn/plan.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/compile/tuning_cache.h"
#include "ftrain/base/error.h"

namespace ftrain::cuda {
namespace {

using Direction = ConvolutionProblem::Direction;

constexpr std::int64_t alignment = 16;  // of every operand, in bytes

cudnnDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return CUDNN_DATA_BFLOAT16;
    case DType::f16:
      return CUDNN_DATA_HALF;
    default:
      return CUDNN_DATA_FLOAT;
  }
}

Descriptor tensor_descriptor(const TensorType& type, std::int64_t id) {
  const Shape& s = type.shape;
  const std::array<std::int64_t, 4> strides{s[1] * s[2] * s[3], 1, s[3] * s[1], s[1]};
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, data_type(type.dtype));
  tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, s.extents());
  tensor.set(CUDNN_ATTR_TENSOR_STRIDES, strides);
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment);
  tensor.finalize("describe " + type.text());
  return tensor;
}

Descriptor convolution_descriptor(const ConvolutionProblem& problem) {
  const std::array<std::int64_t, 2> ones{1, 1}, stride{problem.stride, problem.stride},
      padding{problem.padding, problem.padding};
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  Descriptor convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  convolution.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
  convolution.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  convolution.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, std::int64_t{2});
  convolution.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, ones);
  convolution.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, stride);
  convolution.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, padding);
  convolution.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, padding);
  convolution.finalize("describe " + problem.name);
  return convolution;
}

// How an operation of each direction names its parts.
struct Names {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t convolution, x, w, y, alpha, beta;
};

Names names_of(Direction direction) {
  switch (direction) {
    case Direction::input_grad:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case Direction::weight_grad:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    case Direction::forward:
      break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
}

Descriptor operation_graph(const ConvolutionProblem& problem, const Target& target) {
  const Names names = names_of(problem.direction);
  const float alpha = 1, beta = 0;
  Descriptor operation(names.type);
  operation.set(names.convolution, convolution_descriptor(problem));
  operation.set(names.x, tensor_descriptor(problem.x, x_id));
  operation.set(names.w, tensor_descriptor(problem.w, w_id));
  operation.set(names.y, tensor_descriptor(problem.y, y_id));
  operation.set(names.alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
  operation.set(names.beta, CUDNN_TYPE_FLOAT, 1, &beta);
  operation.finalize("describe " + problem.name);
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
  target.set_handle(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE);
  graph.finalize("describe " + problem.name);
  return graph;
}

std::vector<cudnnBackendNumericalNote_t> notes_of(const Descriptor& engine) {
  return engine.read<cudnnBackendNumericalNote_t>(
      CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
}

PlanChoice choice_of(const Descriptor& engine, const Descriptor& configuration) {
  PlanChoice choice{engine.integer(CUDNN_ATTR_ENGINE_GLOBAL_INDEX), {}};
  for (const Descriptor& knob : configuration.read_descriptors(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                                               CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR,
                                                               CUDNN_KNOB_TYPE_COUNTS)) {
    const auto type = knob.read<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                                        CUDNN_TYPE_KNOB_TYPE, 1);
    choice.knobs.emplace_back(type.at(0), knob.integer(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
  }
  std::sort(choice.knobs.begin(), choice.knobs.end());
  return choice;
}

}  // namespace

ConvolutionProblem::ConvolutionProblem(const Node& node, bool tf32)
    : stride(node.attributes.integer("stride")), padding(node.attributes.integer("padding")) {
  const ConvolutionTypes types = convolution_types(node);
  x = types.x, w = types.weight, y = types.y;
  if (node.op == &ops::def::conv2d_input_grad) direction = Direction::input_grad;
  if (node.op == &ops::def::conv2d_weight_grad) direction = Direction::weight_grad;
  w.dtype = x.dtype;  // cuDNN gives gradients of weights in the operands' type only
  this->tf32 = tf32 && x.dtype == DType::f32;
  name = problem_of(node);
  if (this->tf32) name += ", tf32";
}

Target::Target(const std::string& description) : properties_(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
  properties_->set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                   static_cast<std::int64_t>(description.size()), description.data());
  properties_->finalize("read the description of a device");
}

void Target::set_handle(Descriptor& descriptor, cudnnBackendAttributeName_t name) const {
  if (handle_ != nullptr) descriptor.set(name, CUDNN_TYPE_HANDLE, 1, &handle_);
}

void Target::set_properties(Descriptor& descriptor, cudnnBackendAttributeName_t name) const {
  if (properties_) descriptor.set(name, *properties_);
}

std::string PlanChoice::text() const {
  std::string text = "engine " + std::to_string(engine);
  if (!knobs.empty()) text += ", knobs";
  for (const auto& [type, value] : knobs) {
    text += " " + std::to_string(type) + "=" + std::to_string(value);
  }
  return text;
}

std::optional<PlanChoice> PlanChoice::from(std::string_view text) {
  const auto eat = [&](std::string_view word) {
    if (!text.starts_with(word)) return false;
    text.remove_prefix(word.size());
    return true;
  };
  const auto number = [&](std::int64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return error == std::errc();
  };
  PlanChoice choice;
  if (!eat("engine ") || !number(choice.engine)) return {};
  if (text.empty()) return choice;
  if (!eat(", knobs")) return {};
  while (!text.empty()) {
    auto& [type, value] = choice.knobs.emplace_back();
    if (!eat(" ") || !number(type) || !eat("=") || !number(value)) return {};
  }
  return choice;
}

std::string refuse_engine(const ConvolutionProblem& problem,
                          const std::vector<cudnnBackendNumericalNote_t>& notes) {
  const bool f32 = problem.x.dtype == DType::f32;
  for (const cudnnBackendNumericalNote_t note : notes) {
    switch (note) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        return "is not deterministic";
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
        return "sums in less than fp32";
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
        return "rounds more than the plain sum";
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        if (f32) return "rounds f32 operands to 16 bits";
        break;
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
        if (f32 && !problem.tf32) return "rounds f32 operands to tf32";
        break;
      default:
        break;
    }
  }
  return {};
}

Descriptor variant_pack(void* x, void* w, void* y, void* workspace) {
  const std::array<std::int64_t, 3> ids{x_id, w_id, y_id};
  const std::array<void*, 3> addresses{x, w, y};
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, addresses.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  pack.finalize("take the addresses of a convolution");
  return pack;
}

ConvolutionGraph::ConvolutionGraph(const ConvolutionProblem& problem, const Target& target)
    : problem_(problem),
      target_(target),
      graph_(std::make_shared<Descriptor>(operation_graph(problem, target))) {}

void ConvolutionGraph::take(const Descriptor& configuration,
                            std::vector<PlanChoice>& choices) const {
  const auto engines = configuration.read_descriptors(CUDNN_ATTR_ENGINECFG_ENGINE,
                                                      CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1);
  const std::string reason = refuse_engine(problem_, notes_of(engines.at(0)));
  if (!reason.empty()) {
    if (std::find(refused_.begin(), refused_.end(), reason) == refused_.end())
      refused_.push_back(reason);
    return;
  }
  PlanChoice choice = choice_of(engines[0], configuration);
  if (std::find(choices.begin(), choices.end(), choice) == choices.end()) {
    choices.push_back(std::move(choice));
  }
}

std::vector<PlanChoice> ConvolutionGraph::candidates() const {
  std::vector<PlanChoice> choices;
  for (const cudnnBackendHeurMode_t mode :
       {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK}) {
    Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, *graph_);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    target_.set_properties(heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP);
    if (!heuristic.try_finalize()) continue;  // a mode may know nothing of a problem
    const std::int64_t count =
        heuristic.count(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR);
    for (const Descriptor& configuration : heuristic.read_descriptors(
             CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, count)) {
      take(configuration, choices);
    }
  }
  return choices;
}

std::unique_ptr<Plan> ConvolutionGraph::make(const PlanChoice& choice) const {
  try {
    Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, *graph_);
    engine.set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, choice.engine);
    target_.set_properties(engine, CUDNN_ATTR_ENGINE_DEVICEPROP);
    if (!engine.try_finalize() || !refuse_engine(problem_, notes_of(engine)).empty()) return {};
    Descriptor configuration(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    configuration.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    std::vector<Descriptor> knobs;
    for (const auto& [type, value] : choice.knobs) {
      const auto knob_type = static_cast<cudnnBackendKnobType_t>(type);
      Descriptor& knob = knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
      knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &knob_type);
      knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, value);
      if (!knob.try_finalize()) return {};
    }
    if (!knobs.empty()) configuration.set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, knobs);
    if (!configuration.try_finalize()) return {};
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    target_.set_handle(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE);
    target_.set_properties(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
    if (!plan.try_finalize()) return {};
    return std::make_unique<Plan>(std::move(plan), std::move(configuration), graph_, choice);
  } catch (const DeviceError&) {  // an attribute that this engine does not take
    return {};
  }
}

}  // namespace ftrain::cuda
