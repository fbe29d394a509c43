#include "core/runtime/device.h"

#include "core/graph/opdef.h"

namespace ftrain {
namespace {

std::string handle(Value value) {
  if (!value.valid()) return "none";
  std::string text = "%" + std::to_string(value.node_index());
  if (value.node().outputs.size() > 1) text += "." + std::to_string(value.output());
  return text;
}

std::string place(const Block& block) {
  switch (block.home) {
    case Block::Home::none:
      return "nowhere";
    case Block::Home::resident:
      return "resident+" + std::to_string(block.offset);
    case Block::Home::arena:
      return "arena+" + std::to_string(block.offset);
  }
  return "";
}

std::string title(const Node& node) {
  std::string text = "%" + std::to_string(node.index) + " " + std::string(node.op->name);
  if (!node.name.empty()) text += " '" + node.name + "'";
  return text;
}

}  // namespace

StateStore::~StateStore() = default;
Executable::~Executable() = default;
Device::~Device() = default;

std::string Program::text() const {
  std::string text;
  for (std::int32_t i = 0; i < graph->size(); ++i) {
    const Node& node = graph->node(i);
    const auto n = static_cast<std::size_t>(i);
    text += title(node);
    if (!node.op->leaf) {
      text += "(";
      for (std::size_t k = 0; k < node.inputs.size(); ++k) {
        text += (k > 0 ? ", " : "") + handle(node.inputs[k]);
      }
      text += ")";
      if (const std::string attributes = node.attributes.text(); !attributes.empty()) {
        text += " " + attributes;
      }
    }
    if (n < kernels.size() && kernels[n].def != nullptr) {
      text += " by [" + std::string(kernels[n].def->name) + "]";
    }
    for (std::size_t k = 0; k < node.outputs.size(); ++k) {
      text += (k > 0 ? ", " : " -> ") + node.outputs[k].text() + " @ " + place(plan.values[n][k]);
    }
    if (const Block& scratch = plan.scratch[n]; scratch.home != Block::Home::none) {
      text += ", scratch " + std::to_string(scratch.bytes) + " @ " + place(scratch);
    }
    text += "\n";
  }
  for (const Graph::Named& fetch : graph->fetches()) {
    text += "fetch " + fetch.name + " = " + handle(fetch.value) + "\n";
  }
  return text;
}

std::string Program::kernels_text() const {
  std::string text;
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    if (kernels[i].def == nullptr) continue;
    text += title(graph->node(static_cast<std::int32_t>(i))) + ": ";
    text += kernels[i].def->name;
    for (const auto& [name, reason] : kernels[i].refused) {
      text += "; not " + name + ": " + reason;
    }
    text += "\n";
  }
  return text;
}

}  // namespace ftrain
