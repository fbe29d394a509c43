// Which updates of running statistics become one op.
#include "plugins/devices/cuda/rewrite/merge_running.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "ftrain/graph/opdef.h"

namespace ftrain::cuda {
namespace {

using testing::ElementsAre;

struct Step {
  Graph graph;
  Value ok = graph.input("ok", {DType::f32, {}});

  Value state(const std::string& name) {
    return graph.state({.name = name, .type = {DType::f32, {4}}});
  }
  void update(Value mean, Value variance, double momentum = 0.1, Value when = {}) {
    const std::string number = std::to_string(graph.size());
    const Value batch = graph.input("batch" + number, {DType::f32, {1, 4}});
    ops::update_running(mean, variance, {batch, batch}, when.valid() ? when : ok, momentum, 8);
  }
  void update(const std::string& name, double momentum = 0.1, Value when = {}) {
    update(state(name + ".mean"), state(name + ".variance"), momentum, when);
  }
  // The ops of the merged graph that are no leaves.
  std::vector<std::string> merged() const {
    std::vector<std::string> ops;
    const auto made = merge_running(graph);
    for (std::int32_t i = 0; i < made->size(); ++i) {
      const Node& node = made->node(i);
      if (node.op->leaf) continue;
      ops.emplace_back(node.op->name);
      if (ops.back() != "update_running_many") continue;
      ops.back() += " of " + std::to_string(ManyRunning(node).norms);
    }
    return ops;
  }
};

TEST(MergeRunning, TakesWhatIsAlike) {
  Step step;
  step.update("a");
  step.update("b");
  ops::sqrt(step.ok);
  step.update("c");
  EXPECT_THAT(step.merged(), ElementsAre("sqrt", "update_running_many of 3"));
}

TEST(MergeRunning, LeavesOneAlone) {
  Step step;
  step.update("a");
  EXPECT_THAT(step.merged(), ElementsAre("update_running"));
}

TEST(MergeRunning, KeepsOtherMomentaAndConditionsApart) {
  Step step;
  step.update("a");
  step.update("b");
  step.update("c", 0.2);
  step.update("d", 0.2, ops::sqrt(step.ok));
  step.update("e", 0.2, step.graph.input("other", {DType::f32, {}}));
  EXPECT_THAT(step.merged(), ElementsAre("update_running_many of 2", "sqrt", "update_running",
                                         "update_running", "update_running"));
}

TEST(MergeRunning, KeepsTheOrderAroundWhatReadsOrWritesTheSame) {
  Step step;
  const Value mean = step.state("mean"), variance = step.state("variance");
  step.update("a");
  step.update(mean, variance);
  ops::scale(mean, 2);
  step.update("b");
  step.update(mean, variance);
  step.update(mean, variance);
  EXPECT_THAT(step.merged(), ElementsAre("update_running_many of 2", "scale",
                                         "update_running_many of 2", "update_running"));
}

}  // namespace
}  // namespace ftrain::cuda
