#include "core/verify/evaluator.h"

#include <algorithm>
#include <cstring>
#include <future>

#include "core/data/image.h"

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

Embeddings Evaluator::embed(const PairSet& set) const {
  const std::int64_t images = set.images();
  const auto image_bytes = static_cast<std::size_t>(image_size_ * image_size_ * 3);
  const auto batch_bytes = static_cast<std::size_t>(batch_) * image_bytes;
  Embeddings result;
  result.width = width_;
  result.plain.resize(static_cast<std::size_t>(images * width_));
  result.flipped.resize(result.plain.size());

  const auto decode = [&](std::int64_t begin) {
    std::vector<std::uint8_t> pixels(batch_bytes, 0);
    Decoder decoder;
    for (std::int64_t i = begin; i < std::min(begin + batch_, images); ++i) {
      const std::vector<std::uint8_t> bytes = set.image(i);
      decoder.decode_to(bytes, set.describe_image(i), static_cast<int>(image_size_),
                        pixels.data() + static_cast<std::size_t>(i - begin) * image_bytes);
    }
    return pixels;
  };
  std::vector<std::uint8_t> flipped(batch_bytes);
  std::vector<float> embedding(static_cast<std::size_t>(batch_ * width_));
  const auto forward = [&](const std::vector<std::uint8_t>& pixels, std::int64_t begin,
                           std::vector<float>& out) {
    executable_.write("image", pixels.data());
    executable_.run();
    executable_.read("embedding", embedding.data());
    const std::int64_t count = std::min(batch_, images - begin);
    std::copy_n(embedding.begin(), count * width_, out.begin() + begin * width_);
  };

  std::future<std::vector<std::uint8_t>> next = std::async(std::launch::async, decode, 0);
  for (std::int64_t begin = 0; begin < images; begin += batch_) {
    const std::vector<std::uint8_t> pixels = next.get();
    if (begin + batch_ < images) next = std::async(std::launch::async, decode, begin + batch_);
    forward(pixels, begin, result.plain);
    for (std::int64_t i = 0; i < batch_; ++i) {
      const std::size_t at = static_cast<std::size_t>(i) * image_bytes;
      mirror(pixels.data() + at, image_size_, flipped.data() + at);
    }
    forward(flipped, begin, result.flipped);
  }
  return result;
}

Accuracy Evaluator::accuracy(const PairSet& set, int folds) const {
  const Embeddings e = embed(set);
  return measure_accuracy(e.plain, e.flipped, e.width, set.pairs(), folds);
}

}  // namespace ftrain
