// Metrics: what a verification measures, by the names in a job's `[verify] metrics`.
//
// A metric makes numbers of a set's distances and verdicts, or of its embeddings. Those with names
// of their own stand in Accuracy::metrics, and so on the console, in metrics.jsonl, in summary.json
// and in what `ftrain verify` prints. Its keys stand in [verify.NAME].
//
//   struct Closest final : ftrain::Metric {
//     std::vector<ftrain::NamedValue> measure(const ftrain::VerifiedSet& set) const override {
//       return {{"closest", *std::ranges::min_element(set.pairs.distance)}};
//     }
//   };
// Threads: the rank's; every rank measures the same. Failure: DataError.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ftrain/base/named_value.h"
#include "ftrain/config/keys.h"
#include "ftrain/plugin/api.h"
#include "ftrain/verify/protocol.h"

namespace ftrain {

// A verification set as a network sees it.
struct VerifiedSet {
  PairDistances pairs;  // in the set's own order: folds are runs of it
  int folds = 10;
  // Raw, of the images and of their mirror images: [images, dimension], row-major.
  std::span<const float> embeddings, flipped;
  std::int64_t dimension = 0;
};

class FTRAIN_API Metric : public Configurable {
 public:
  static constexpr const char* kind = "metric";
  ~Metric() override;

  // Each value has a name that no other metric of the job gives. What is undefined for a set is
  // left out.
  virtual std::vector<NamedValue> measure(const VerifiedSet& set) const = 0;
};

}  // namespace ftrain
