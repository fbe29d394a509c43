#include "core/train/report.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace ftrain {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

// Keys that a plugin names stand by themselves: what it has not named has none.
template <class Values>
void put_metrics(Json& json, const Values& values) {
  if (values.empty()) return;
  Json metrics = Json::object();
  for (const auto& [name, value] : values) metrics[name] = number(value);
  json["metrics"] = std::move(metrics);
}

Json accuracies(const std::map<std::string, Accuracy>& accuracy) {
  Json json = Json::object();
  for (const auto& [set, a] : accuracy) {
    Json tar = Json::object();
    for (const auto& [rate, value] : a.tar) tar[rate] = number(value);
    json[set] = {{"mean", number(a.mean)},
                 {"deviation", number(a.deviation)},
                 {"threshold", number(a.threshold)},
                 {"xnorm", number(a.xnorm)},
                 {"tar", std::move(tar)}};
    put_metrics(json[set], a.metrics);
  }
  return json;
}

}  // namespace

std::string step_json(const StepReport& report) {
  Json json{{"step", report.step},
            {"epoch", number(report.epoch)},
            {"loss", number(report.loss)},
            {"rate", number(report.rate)},
            {"gradient_norm", number(report.gradient_norm)},
            {"samples_per_second", number(report.samples_per_second)},
            {"data_wait", number(report.data_wait)}};
  put_metrics(json, report.metrics);
  return json.dump();
}

std::string verification_json(const VerificationReport& report) {
  const Json json{{"step", report.step}, {"accuracy", accuracies(report.accuracy)}};
  return json.dump();
}

std::string accuracy_json(const std::map<std::string, Accuracy>& accuracy) {
  return accuracies(accuracy).dump();
}

std::string summary_json(const RunSummary& summary) {
  Json json{{"name", summary.name},
            {"state", summary.state},
            {"steps", summary.steps},
            {"epochs", number(summary.epochs)},
            {"loss", number(summary.loss)},
            {"accuracy", accuracies(summary.accuracy)},
            {"best", summary.best ? number(*summary.best) : Json()},
            {"best_step", summary.best ? Json(summary.best_step) : Json()},
            {"samples_per_second", number(summary.samples_per_second)},
            {"data_wait", number(summary.data_wait)},
            {"peak_memory_bytes", summary.peak_memory_bytes},
            {"ranks", summary.ranks},
            {"seconds", number(summary.seconds)},
            {"seconds_to_first_step", number(summary.seconds_to_first_step)},
            {"skipped_steps", summary.skipped_steps},
            {"skipped_samples", summary.skipped_samples}};
  put_metrics(json, summary.metrics);
  return json.dump(2) + "\n";
}

}  // namespace ftrain
