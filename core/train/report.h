// The words of a run for programs: the lines of metrics.jsonl and the text of summary.json.
//
// Their keys are a contract with whoever reads a run folder. Numbers are written so that reading
// them gives the same bits; what is not finite becomes null, for JSON has no word for it. Threads:
// no state.
#pragma once

#include <map>
#include <string>

#include "ftrain/observer.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// {"step", "epoch", "loss", "rate", "gradient_norm", "samples_per_second", "data_wait"}: one line.
// A step that reports scalars has "metrics": {name: value} too, as the summary has.
FTRAIN_API std::string step_json(const StepReport& report);

// {"step", "accuracy": {set: ...}}: one line.
FTRAIN_API std::string verification_json(const VerificationReport& report);

// {set: {"mean", "deviation", "threshold", "xnorm", "tar": {"1e-3": ...}}}: one line. A set has
// "metrics": {name: value} too where the job's metrics give values of other names.
FTRAIN_API std::string accuracy_json(const std::map<std::string, Accuracy>& accuracy);

// The whole of summary.json.
FTRAIN_API std::string summary_json(const RunSummary& summary);

}  // namespace ftrain
