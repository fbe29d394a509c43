// The verifications of one run: its sets, and the network's forward pass over all ranks.
//
// Every rank embeds its share of the images, with the first rank's running statistics: those of the
// run, as in its checkpoints. Threads: the rank's. Failure: DataError naming the set and the image.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/train/assembly.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/device.h"
#include "ftrain/observer.h"

namespace ftrain {

class Verification {
 public:
  // Opens the sets. `communicator` may be null: one rank. All that is given must outlive this.
  Verification(Assembly& assembly, Communicator* communicator);

  bool wanted() const { return !assembly_.pair_sets.empty(); }
  // The forward pass, prepared and not yet compiled. The store holds the training step's states.
  Program prepare(const StateStore& store);
  void compile(Program program, StateStore& store);
  // Collective, after compile().
  VerificationReport run(std::int64_t step);

 private:
  void share_statistics();

  Assembly& assembly_;
  Communicator* communicator_;
  StateStore* store_ = nullptr;
  std::unique_ptr<Executable> forward_;
  std::int64_t width_ = 0;
};

}  // namespace ftrain
