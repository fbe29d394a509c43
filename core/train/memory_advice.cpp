#include "core/train/memory_advice.h"

#include <algorithm>
#include <utility>

namespace ftrain {
namespace {

// What is left over for what no plan knows: the driver, libraries, pieces between tensors.
constexpr double usable = 0.97;

std::int64_t rounded(std::int64_t batch) {
  return batch >= 64 ? batch / 8 * 8 : batch;
}

}  // namespace

MemoryGrowth growth_of(const Graph& graph, bool adds_states, std::string batch_key,
                       std::int64_t batch, std::int64_t classes) {
  MemoryGrowth growth{.batch_key = std::move(batch_key), .batch = batch};
  if (!adds_states) return growth;
  for (const Graph::State& state : graph.states()) {
    const StateSpec& spec = state.spec;
    if (spec.memory == StateSpec::Memory::host) continue;
    growth.state_bytes += spec.type.bytes();
    if (spec.rows != classes || classes == 0) continue;
    growth.classes = classes;
    growth.centers_bytes += spec.type.bytes();
  }
  return growth;
}

OutOfMemoryError with_advice(const OutOfMemoryError& error, const MemoryGrowth& growth) {
  const double available = usable * static_cast<double>(error.available);
  const auto states = static_cast<double>(growth.state_bytes);
  const auto centers = static_cast<double>(growth.centers_bytes);
  const double rest = std::max(static_cast<double>(error.needed) - states, 1.0);
  const double missing = static_cast<double>(error.needed) - available;
  std::string advice;
  if (available > states) {
    const auto batch =
        static_cast<std::int64_t>(static_cast<double>(growth.batch) * (available - states) / rest);
    if (batch >= 1 && batch < growth.batch) {
      advice += "about " + growth.batch_key + " = " + std::to_string(rounded(batch)) +
                " instead of " + std::to_string(growth.batch) + " would fit";
    }
  }
  if (growth.classes > 0 && centers > missing) {
    const auto classes = static_cast<std::int64_t>(static_cast<double>(growth.classes) *
                                                   (centers - missing) / centers);
    advice += (advice.empty() ? "about " : ", or about ") + std::to_string(classes) +
              " classes instead of " + std::to_string(growth.classes);
    if (advice.find("fit") == std::string::npos) advice += " would fit";
  }
  if (growth.classes > 0 && 4 * growth.centers_bytes > error.needed) {
    advice += advice.empty() ? "share the class centers among more ranks, or set "
                             : "; class centers may also be shared among ranks, or be kept "
                               "elsewhere by ";
    advice += "[parallelism] centers_memory = \"host\"";
  }
  if (advice.empty()) {
    advice = "not even " + growth.batch_key +
             " = 1 would fit; use a smaller network or a device "
             "with more memory";
  }
  return OutOfMemoryError(std::string(error.what()) + "; " + advice, error.needed, error.available);
}

}  // namespace ftrain
