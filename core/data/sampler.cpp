#include "core/data/sampler.h"

#include <cmath>
#include <string>

#include "ftrain/base/error.h"
#include "ftrain/base/philox.h"

namespace ftrain {
namespace {

constexpr std::uint64_t stream = 0x73616D706C6572ull;  // "sampler"
constexpr std::uint32_t rounds = 10;

}  // namespace

Sampler::Sampler(std::int64_t size, std::int64_t global_batch, bool shuffle, std::uint64_t seed)
    : size_(size), global_batch_(global_batch), shuffle_(shuffle), key_(mix64(seed, stream)) {
  if (size < 1) throw DataError("the data set holds no images");
  if (global_batch < 1)
    throw ConfigError("a batch must hold at least 1 sample, not " + std::to_string(global_batch));
  steps_per_epoch_ = size >= global_batch ? size / global_batch : 1;
  const auto count = static_cast<std::uint64_t>(size);
  left_ = static_cast<std::uint64_t>(std::sqrt(static_cast<double>(count)));
  while (left_ * left_ < count) ++left_;
  right_ = (count + left_ - 1) / left_;
}

// A Feistel network over pairs (a, b), a < left_, b < right_, whose rounds add a keyed random
// function of one half to the other: each round can be undone, so the whole is a permutation of
// left_ * right_ numbers. Walking on from numbers past the end until one is inside makes it a
// permutation of size_ of them; less than left_ are outside, so a second walk is rare.
std::int64_t Sampler::index(std::int64_t epoch, std::int64_t position) const {
  position %= size_;
  if (!shuffle_) return position;
  const auto epoch_low = static_cast<std::uint32_t>(epoch);
  const auto epoch_high = static_cast<std::uint32_t>(static_cast<std::uint64_t>(epoch) >> 32);
  auto value = static_cast<std::uint64_t>(position);
  do {
    std::uint64_t a = value / right_, b = value % right_;
    for (std::uint32_t round = 0; round < rounds; ++round) {
      // Halves fit 32 bits: left_ is the square root of a 63-bit number.
      const bool even = round % 2 == 0;
      const auto half = static_cast<std::uint32_t>(even ? b : a);
      const std::uint64_t bits = Philox::at(key_, half, round, epoch_low, epoch_high).bits64(0);
      if (even)
        a = (a + bits % left_) % left_;
      else
        b = (b + bits % right_) % right_;
    }
    value = a * right_ + b;
  } while (value >= static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(value);
}

}  // namespace ftrain
