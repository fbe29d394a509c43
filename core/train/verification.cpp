#include "core/train/verification.h"

#include <cstddef>
#include <utility>

#include "core/train/step_graph.h"
#include "core/verify/evaluator.h"

namespace ftrain {

Verification::Verification(Assembly& assembly, Communicator* communicator)
    : assembly_(assembly), communicator_(communicator) {
  for (NamedPairs& set : assembly_.pair_sets) set.pairs->open(set.file, assembly_.seed());
}

Program Verification::prepare(const StateStore& store) {
  const auto graph = evaluation_graph(assembly_, assembly_.verify.batch);
  width_ = embedding_width(*graph);
  return assembly_.device->prepare(*graph, &store, nullptr);
}

void Verification::compile(Program program, StateStore& store) {
  store_ = &store;
  forward_ = assembly_.device->compile(std::move(program), store, nullptr);
}

VerificationReport Verification::run(std::int64_t step) {
  share_statistics();
  const Evaluator evaluator(*forward_, assembly_.verify.batch, assembly_.data.image_size, width_);
  VerificationReport report;
  report.step = step;
  for (const NamedPairs& set : assembly_.pair_sets) {
    report.accuracy[set.name] = evaluator.accuracy(
        *set.pairs, assembly_.metrics, static_cast<int>(assembly_.verify.folds), communicator_);
  }
  return report;
}

// Ranks whose batch norms see their own samples alone have running statistics of their own.
void Verification::share_statistics() {
  if (!communicator_) return;
  for (const StateStore::Entry& entry : store_->entries()) {
    if (entry.spec.role != StateSpec::Role::statistic) continue;
    std::vector<std::byte> value(entry.spec.type.bytes());
    store_->read(entry.spec.name, value.data());
    communicator_->broadcast(value.data(), value.size(), 0);
    if (communicator_->rank() != 0) store_->write(entry.spec.name, value.data());
  }
}

}  // namespace ftrain
