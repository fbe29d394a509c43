#include "ftrain/device/kernel.h"

#include <algorithm>

#include "ftrain/base/error.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {

Kernel::~Kernel() = default;

void KernelList::add(const KernelDef& def) {
  defs_.push_back(def);
}

std::vector<const KernelDef*> KernelList::of(std::string_view op) const {
  std::vector<const KernelDef*> found;
  for (const KernelDef& def : defs_) {
    if (def.op == op) found.push_back(&def);
  }
  std::stable_sort(found.begin(), found.end(), [](const KernelDef* a, const KernelDef* b) {
    return a->priority > b->priority;
  });
  return found;
}

std::vector<const KernelDef*> KernelList::candidates(const Node& node,
                                                     const KernelEnvironment& environment) const {
  std::vector<const KernelDef*> found = of(node.op->name);
  std::erase_if(found, [&](const KernelDef* def) {
    return def->refuse != nullptr && !def->refuse(node, environment).empty();
  });
  return found;
}

KernelChoice KernelList::choose(const Node& node, const KernelEnvironment& environment,
                                std::string_view only) const {
  KernelChoice choice;
  for (const KernelDef* def : of(node.op->name)) {
    if (!only.empty() && def->name != only) continue;
    std::string reason = def->refuse ? def->refuse(node, environment) : std::string();
    if (reason.empty()) {
      choice.def = def;
      return choice;
    }
    choice.refused.emplace_back(def->name, std::move(reason));
  }
  std::string message = "no kernel for op '" + std::string(node.op->name) + "'";
  if (!node.name.empty()) message += " at '" + node.name + "'";
  std::vector<std::string> types;
  for (const Value& input : node.inputs) {
    types.push_back(input.valid() ? input.type().text() : "none");
  }
  message += " of (";
  for (std::size_t i = 0; i < types.size(); ++i) message += (i > 0 ? ", " : "") + types[i];
  message += ")";
  if (choice.refused.empty()) {
    message += only.empty() ? ": the device has none of that op"
                            : ": the device has none named '" + std::string(only) + "'";
  }
  for (const auto& [name, reason] : choice.refused) message += "; " + name + ": " + reason;
  if (only.empty() && node.op->decomposition == nullptr) {
    message +=
        "; nor is the op made of plainer ones: its definition may name a decomposition, or a "
        "plugin may bring a kernel (Registry::add_kernel) and the job load it ([plugins] load)";
  }
  throw DeviceError(message);
}

}  // namespace ftrain
