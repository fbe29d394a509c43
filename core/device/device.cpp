#include "ftrain/device/device.h"

#include <cstdio>

#include <cstring>

#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "ftrain/graph/opdef.h"

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
    case Block::Home::host:
      return "host+" + std::to_string(block.offset);
  }
  return "";
}

std::string title(const Node& node) {
  std::string text = "%" + std::to_string(node.index) + " " + std::string(node.op->name);
  if (!node.name.empty()) text += " '" + node.name + "'";
  return text;
}

std::string milliseconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g ms", seconds * 1e3);
  return text;
}

// ", 6.5 ms, 430 GFLOP/s; against onednn direct 16.1 ms"
std::string measurement(const KernelChoice& choice, const Node& node) {
  if (choice.measured.empty()) return {};
  const double seconds = choice.measured.front().second;
  std::string text = ", " + milliseconds(seconds);
  if (const double flops = cost_of(node).flops; flops > 0 && seconds > 0) {
    char speed[40];
    std::snprintf(speed, sizeof speed, ", %.0f GFLOP/s", flops / seconds * 1e-9);
    text += speed;
  }
  for (std::size_t i = 1; i < choice.measured.size(); ++i) {
    const auto& [name, other] = choice.measured[i];
    text += (i == 1 ? "; against " : ", ") + name + " " + milliseconds(other);
  }
  return text;
}

}  // namespace

StateStore::~StateStore() = default;

const StateStore::Entry& StateStore::entry(std::string_view name) const {
  std::vector<std::string> names;
  for (const Entry& entry : entries()) {
    if (entry.spec.name == name) return entry;
    names.push_back(entry.spec.name);
  }
  throw DeviceError("no state '" + std::string(name) + "' in the store" +
                    did_you_mean(name, names));
}

void StateStore::read_part(std::string_view name, std::size_t first, std::size_t count,
                           void* row_major) const {
  const TensorType& type = entry(name).spec.type;
  std::vector<std::byte> whole(type.bytes());
  read(name, whole.data());
  std::memcpy(row_major, whole.data() + first * size_of(type.dtype), count * size_of(type.dtype));
}

void StateStore::write_part(std::string_view name, std::size_t first, std::size_t count,
                            const void* row_major) {
  const TensorType& type = entry(name).spec.type;
  std::vector<std::byte> whole(type.bytes());
  read(name, whole.data());
  std::memcpy(whole.data() + first * size_of(type.dtype), row_major, count * size_of(type.dtype));
  write(name, whole.data());
}

Executable::~Executable() = default;
void Executable::read_before(std::string_view fetch, void*) {
  throw DeviceError("the program keeps no '" + std::string(fetch) + "' of the run before the last");
}

std::vector<TimelineEvent> Executable::run_with_timeline() {
  run();
  return {};
}

Device::~Device() = default;

std::size_t Device::overhead_bytes(const Program&) {
  return 0;
}

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
  for (const Decomposed& node : decomposed) {
    text += node.op + (node.name.empty() ? "" : " '" + node.name + "'") + ": by its decomposition";
    if (node.refused.empty()) text += "; the device has no kernel of that op";
    for (const auto& [name, reason] : node.refused) text += "; not " + name + ": " + reason;
    text += "\n";
  }
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    if (kernels[i].def == nullptr) continue;
    const Node& node = graph->node(static_cast<std::int32_t>(i));
    text += title(node) + ": " + std::string(kernels[i].def->name) + measurement(kernels[i], node);
    for (const auto& [name, reason] : kernels[i].refused) {
      text += "; not " + name + ": " + reason;
    }
    text += "\n";
  }
  return text;
}

}  // namespace ftrain
