// Runs a network over verification sets.
//
// Ownership: borrows the executable and the sets. Threads: one; images are decoded beside the
// device's work, one at a time. Failure: DataError naming the set and the image.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/data/pair_set.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/device.h"
#include "ftrain/plugin/api.h"
#include "ftrain/verify/metric.h"

namespace ftrain {

// The embeddings of images `indices` of a set and of their mirror images.
struct Embeddings {
  std::vector<float> plain, flipped;  // [indices, width]
  std::int64_t width = 0;
};

// Encoded images by number; both are called from a thread beside the caller's.
struct ImageSource {
  std::int64_t count = 0;
  std::function<std::vector<std::uint8_t>(std::int64_t)> read;
  std::function<std::string(std::int64_t)> describe;  // as messages name an image
  std::int64_t first = 0;                             // images [first, first + count)
};

class FTRAIN_API Evaluator {
 public:
  // `executable` has the input image u8 [batch, size, size, 3] and the fetch embedding [batch,
  // width]. Each call takes the states as they are then.
  Evaluator(Executable& executable, std::int64_t batch, std::int64_t image_size,
            std::int64_t width);

  // The embeddings of images first, first + 1, ..., as rows.
  using Take = std::function<void(std::int64_t first, std::span<const float> rows,
                                  std::span<const float> mirrored)>;
  // An image that cannot be read or decoded: its row is that of a black image.
  using Damaged = std::function<void(std::int64_t image, const DataError& error)>;
  // Batch after batch, in order. `mirrored` is empty unless asked for. Without `damaged` such an
  // image's error is thrown.
  void embed(const ImageSource& images, bool with_mirrored, const Take& take,
             const Damaged& damaged = {}) const;
  // Over several ranks (`communicator` may be null: one) each embeds an equal run of the images,
  // and every rank gets all embeddings. Collective.
  Embeddings embed(const PairSet& set, Communicator* communicator = nullptr) const;
  // What the metrics make of them.
  Accuracy accuracy(const PairSet& set, std::span<const std::unique_ptr<Metric>> metrics, int folds,
                    Communicator* communicator = nullptr) const;

 private:
  Executable& executable_;
  std::int64_t batch_, image_size_, width_;
};

}  // namespace ftrain
