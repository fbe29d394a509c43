// Runs a network over verification sets.
//
// Ownership: borrows the executable and the sets. Threads: one; images are decoded beside the
// device's work. Failure: DataError naming the set and the image.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/data/pair_set.h"
#include "core/plugin/api.h"
#include "core/runtime/device.h"
#include "core/verify/protocol.h"

namespace ftrain {

// The embeddings of images `indices` of a set and of their mirror images.
struct Embeddings {
  std::vector<float> plain, flipped;  // [indices, width]
  std::int64_t width = 0;
};

class FTRAIN_API Evaluator {
 public:
  // `executable` has the input image u8 [batch, size, size, 3] and the fetch embedding [batch,
  // width].
  Evaluator(Executable& executable, std::int64_t batch, std::int64_t image_size,
            std::int64_t width);

  Embeddings embed(const PairSet& set) const;
  Accuracy accuracy(const PairSet& set, int folds) const;

 private:
  Executable& executable_;
  std::int64_t batch_, image_size_, width_;
};

}  // namespace ftrain
