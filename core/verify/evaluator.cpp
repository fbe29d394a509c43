#include "core/verify/evaluator.h"

#include <algorithm>
#include <cstring>
#include <future>
#include <utility>

#include "core/verify/metrics.h"
#include "ftrain/data/image.h"

namespace ftrain {
namespace {

// u8 [size, size, 3] mirrored left to right.
void mirror(const std::uint8_t* in, std::int64_t size, std::uint8_t* out) {
  for (std::int64_t y = 0; y < size; ++y) {
    for (std::int64_t x = 0; x < size; ++x) {
      std::memcpy(out + (y * size + x) * 3, in + (y * size + size - 1 - x) * 3, 3);
    }
  }
}

}  // namespace

Evaluator::Evaluator(Executable& executable, std::int64_t batch, std::int64_t image_size,
                     std::int64_t width)
    : executable_(executable), batch_(batch), image_size_(image_size), width_(width) {}

void Evaluator::embed(const ImageSource& images, bool with_mirrored, const Take& take,
                      const Damaged& damaged) const {
  executable_.refresh();
  const auto image_bytes = static_cast<std::size_t>(image_size_ * image_size_ * 3);
  const auto batch_bytes = static_cast<std::size_t>(batch_) * image_bytes;
  const std::int64_t end = images.first + images.count;
  using Damages = std::vector<std::pair<std::int64_t, DataError>>;
  struct Decoded {
    std::vector<std::uint8_t> pixels;
    Damages damages;
  };
  const auto decode = [&](std::int64_t begin) {
    Decoded decoded{std::vector<std::uint8_t>(batch_bytes, 0), {}};
    Decoder decoder;
    for (std::int64_t i = begin; i < std::min(begin + batch_, end); ++i) {
      std::uint8_t* const out =
          decoded.pixels.data() + static_cast<std::size_t>(i - begin) * image_bytes;
      try {
        const std::vector<std::uint8_t> bytes = images.read(i);
        decoder.decode_to(bytes, images.describe(i), static_cast<int>(image_size_), out);
      } catch (const DataError& error) {
        if (!damaged) throw;
        std::fill_n(out, image_bytes, std::uint8_t{0});
        decoded.damages.emplace_back(i, error);
      }
    }
    return decoded;
  };
  std::vector<std::uint8_t> mirrored_pixels(with_mirrored ? batch_bytes : 0);
  const auto size = static_cast<std::size_t>(batch_ * width_);
  std::vector<float> rows(size), mirrored(with_mirrored ? size : 0);
  const auto forward = [&](const std::vector<std::uint8_t>& pixels, std::vector<float>& out) {
    executable_.write("image", pixels.data());
    executable_.run();
    executable_.read("embedding", out.data());
  };

  if (images.count == 0) return;
  std::future<Decoded> next = std::async(std::launch::async, decode, images.first);
  for (std::int64_t begin = images.first; begin < end; begin += batch_) {
    const Decoded decoded = next.get();
    if (begin + batch_ < end) {
      next = std::async(std::launch::async, decode, begin + batch_);
    }
    for (const auto& [image, error] : decoded.damages) damaged(image, error);
    forward(decoded.pixels, rows);
    if (with_mirrored) {
      for (std::size_t at = 0; at < batch_bytes; at += image_bytes) {
        mirror(decoded.pixels.data() + at, image_size_, mirrored_pixels.data() + at);
      }
      forward(mirrored_pixels, mirrored);
    }
    const auto count = static_cast<std::size_t>(std::min(batch_, end - begin) * width_);
    take(begin, std::span(rows).first(count), std::span(mirrored).first(with_mirrored ? count : 0));
  }
}

Embeddings Evaluator::embed(const PairSet& set, Communicator* communicator) const {
  const std::int64_t rank = communicator ? communicator->rank() : 0;
  const std::int64_t ranks = communicator ? communicator->size() : 1;
  const std::int64_t each = (set.images() + ranks - 1) / ranks;
  const std::int64_t first = std::min(set.images(), rank * each);
  const std::int64_t count = std::min(set.images() - first, each);
  Embeddings result;
  result.width = width_;
  result.plain.reserve(static_cast<std::size_t>((ranks > 1 ? each : count) * width_));
  result.flipped.reserve(result.plain.capacity());
  const ImageSource images{count, [&](std::int64_t i) { return set.image(i); },
                           [&](std::int64_t i) { return set.describe_image(i); }, first};
  embed(images, true, [&](std::int64_t, auto rows, auto mirrored) {
    result.plain.insert(result.plain.end(), rows.begin(), rows.end());
    result.flipped.insert(result.flipped.end(), mirrored.begin(), mirrored.end());
  });
  if (ranks == 1) return result;
  // The last ranks' runs may be shorter: all are made as long, and the end is cut off.
  const auto gathered = [&](std::vector<float>& mine) {
    mine.resize(static_cast<std::size_t>(each * width_));
    std::vector<float> all(mine.size() * static_cast<std::size_t>(ranks));
    communicator->all_gather(mine.data(), all.data(), mine.size() * sizeof(float));
    all.resize(static_cast<std::size_t>(set.images() * width_));
    mine = std::move(all);
  };
  gathered(result.plain);
  gathered(result.flipped);
  return result;
}

Accuracy Evaluator::accuracy(const PairSet& set, std::span<const std::unique_ptr<Metric>> metrics,
                             int folds, Communicator* communicator) const {
  const Embeddings e = embed(set, communicator);
  return measure({.pairs = pair_distances(e.plain, e.flipped, e.width, set.pairs()),
                  .folds = folds,
                  .embeddings = e.plain,
                  .flipped = e.flipped,
                  .dimension = e.width},
                 metrics);
}

}  // namespace ftrain
