#include "core/train/step_reader.h"

#include <algorithm>
#include <string>

namespace ftrain {

StepReader::StepReader(Executable& step)
    : executable_(step), reported_(reported_scalars(*step.program().graph)) {
  const auto& fetches = step.program().graph->fetches();
  has_notes_ = std::any_of(fetches.begin(), fetches.end(),
                           [](const Graph::Named& fetch) { return fetch.name == "notes"; });
}

void StepReader::enqueued(std::int64_t number, float rate) {
  steps_.push_back({number, rate});
}

StepScalars StepReader::read() {
  StepScalars scalars{.step = steps_.front().number,
                      .rate = steps_.front().rate,
                      .loss = fetch("loss"),
                      .gradient_norm = fetch("gradient_norm"),
                      .ok = fetch("ok"),
                      .metrics = {}};
  if (has_notes_) fetch("notes", scalars.notes.data());
  for (const ReportedScalar& reported : reported_) {
    double sum = 0;
    for (const std::string& name : reported.fetches) sum += static_cast<double>(fetch(name));
    scalars.metrics.push_back({reported.name, sum / static_cast<double>(reported.fetches.size())});
  }
  steps_.pop_front();
  return scalars;
}

// Of the first step under way: of two, it is the run before the last.
void StepReader::fetch(std::string_view name, void* value) {
  steps_.size() > 1 ? executable_.read_before(name, value) : executable_.read(name, value);
}

float StepReader::fetch(std::string_view name) {
  float value = 0;
  fetch(name, &value);
  return value;
}

}  // namespace ftrain
