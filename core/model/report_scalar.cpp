#include "ftrain/model/report_scalar.h"

#include <algorithm>
#include <string>

#include "core/model/reported_scalars.h"
#include "ftrain/base/error.h"

namespace ftrain {
namespace {

// Parts of a step report one name: their fetches have the part's number behind this.
constexpr char part_mark = '@';

bool is_name(std::string_view name) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !name.empty() && std::all_of(name.begin(), name.end(), fits);
}

}  // namespace

void report_scalar(Graph& graph, std::string_view name, Value value) {
  const std::string title = "report_scalar '" + std::string(name) + "': ";
  if (!is_name(name)) {
    throw PluginError(title + "a name has letters, digits, '_', '-' and '.' alone");
  }
  if (!value.valid() || value.dtype() != DType::f32 || value.shape().rank() != 0) {
    throw ShapeError(title + "takes an f32 scalar, got " +
                     (value.valid() ? value.type().text() : "no value") +
                     "; reduce a tensor first, as ops::mean does");
  }
  std::string fetch = std::string(metric_prefix) + std::string(name);
  if (const auto part = graph.stage().micro_batch; part > 0) {
    fetch += part_mark + std::to_string(part);
  }
  for (const Graph::Named& other : graph.fetches()) {
    if (other.name == fetch) {
      throw PluginError(title + "the step reports a scalar of that name already; choose another");
    }
  }
  graph.fetch(std::move(fetch), value);
}

void report_scalar(const Scope& scope, std::string_view name, Value value) {
  if (scope.build().training) report_scalar(scope.graph(), name, value);
}

std::vector<ReportedScalar> reported_scalars(const Graph& graph) {
  std::vector<ReportedScalar> scalars;
  for (const Graph::Named& fetch : graph.fetches()) {
    if (!fetch.name.starts_with(metric_prefix)) continue;
    std::string name = fetch.name.substr(metric_prefix.size());
    name = name.substr(0, name.find(part_mark));
    auto found = std::find_if(scalars.begin(), scalars.end(),
                              [&](const ReportedScalar& scalar) { return scalar.name == name; });
    if (found == scalars.end()) found = scalars.insert(scalars.end(), {std::move(name), {}});
    found->fetches.push_back(fetch.name);
  }
  return scalars;
}

}  // namespace ftrain
