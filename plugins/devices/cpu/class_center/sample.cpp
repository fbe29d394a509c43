// Which classes a step of Partial FC works on: Philox for many classes at once, into a bit map, and
// the bits that are set in order. class_is_drawn() (ftrain/ops/random.h) says what is drawn.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/class_center/sample.cpp"
// Highway's order: foreach_target compiles this file once a target, then highway.h.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu::class_center {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Words = hn::ScalableTag<std::uint64_t>;
using Word = hn::Vec<Words>;

// The high and low half of the product of each lane's low half with `factor`.
HWY_INLINE void multiply(Word value, std::uint32_t factor, Word low_half, Word& high, Word& low) {
#if HWY_TARGET == HWY_SCALAR
  const Word product = hn::Set(Words(), hn::GetLane(value) * factor);
#else
  const hn::Repartition<std::uint32_t, Words> halves;
  const Word product =
      hn::MulEven(hn::BitCast(halves, value), hn::BitCast(halves, hn::Set(Words(), factor)));
#endif
  high = hn::ShiftRight<32>(product);
  low = hn::And(product, low_half);
}

// A bit for each class of the draws [first, first + 16 * words): whether the upper 24 bits of its
// number lie under `threshold`.
void DrawClasses(std::uint64_t key, std::uint64_t step, std::uint64_t first, std::int64_t words,
                 std::uint32_t threshold, std::uint64_t* bits) {
  const Words d;
  constexpr std::int64_t lanes = HWY_LANES(std::uint64_t);
  const Word low_half = hn::Set(d, 0xFFFFFFFFull);
  const Word under = hn::Set(d, std::uint64_t{threshold} << 8);
  // Class 4 * draw + i has number i of the draw: the bit of lane l goes to 4 * l + i.
  HWY_ALIGN std::uint64_t shifted[lanes];
  for (std::int64_t l = 0; l < lanes; ++l) shifted[l] = std::uint64_t{1} << (4 * l);
  const Word bit = hn::Load(d, shifted);
  const hn::RebindToSigned<Words> compared;  // values below 2^33
  const auto taken = [&](Word number, Word to) {
    const auto is = hn::Lt(hn::BitCast(compared, number), hn::BitCast(compared, under));
    return hn::And(hn::BitCast(d, hn::VecFromMask(compared, is)), to);
  };
  const Word c2_start = hn::Set(d, step & 0xFFFFFFFFull), c3_start = hn::Set(d, step >> 32);
  for (std::int64_t w = 0; w < words; ++w) {
    std::uint64_t made = 0;
    for (std::int64_t part = 0; part < 16; part += lanes) {
      const std::uint64_t draw = first + static_cast<std::uint64_t>(16 * w + part);
      const Word counter = hn::Iota(d, draw);
      Word c0 = hn::And(counter, low_half), c1 = hn::ShiftRight<32>(counter);
      Word c2 = c2_start, c3 = c3_start;
      auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
      for (int round = 0; round < 10; ++round) {
        Word high0, low0, high2, low2;
        multiply(c0, 0xD2511F53u, low_half, high0, low0);
        multiply(c2, 0xCD9E8D57u, low_half, high2, low2);
        c0 = hn::Xor(hn::Xor(high2, c1), hn::Set(d, k0));
        c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d, k1));
        c1 = low2;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
      }
      const Word all =
          hn::Or(hn::Or(taken(c0, bit), taken(c1, hn::ShiftLeft<1>(bit))),
                 hn::Or(taken(c2, hn::ShiftLeft<2>(bit)), taken(c3, hn::ShiftLeft<3>(bit))));
      // Each bit stands in one lane alone: their sum is their union.
      made |= hn::GetLane(hn::SumOfLanes(d, all)) << (4 * part);
    }
    bits[w] = made;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu::class_center
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "ftrain/ops/random.h"
#include "plugins/devices/cpu/class_center/tiled.h"

namespace ftrain::cpu {
namespace class_center {
HWY_EXPORT(DrawClasses);
auto draw_classes(const std::string& isa) {
  return FTRAIN_SIMD(DrawClasses, isa);
}
}  // namespace class_center
namespace {

class SampleClasses final : public Kernel {
 public:
  SampleClasses(const Node& node, const KernelEnvironment& environment)
      : draw_(class_center::draw_classes(environment.isa)),
        threads_(environment.threads),
        batch_(node.input(0).shape[0]),
        first_(node.attributes.integer("first_class")),
        classes_(node.attributes.integer("local_classes")),
        capacity_(node.attributes.integer("capacity")),
        key_(mix64(static_cast<std::uint64_t>(node.attributes.integer("seed")), sample_purpose)) {
    // uniform() is a multiple of 2^-24: under the rate when the multiple is.
    const auto rate = static_cast<float>(node.attributes.number("sample_rate"));
    threshold_ = static_cast<std::uint32_t>(std::ceil(static_cast<double>(rate) * 16777216.0));
    offset_ = first_ % 4;
    words_ = (offset_ + classes_ + 63) / 64;
  }

  std::size_t scratch_bytes() const override { return static_cast<std::size_t>(words_) * 8 * 2; }
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    labels_ = static_cast<const std::int64_t*>(inputs[0]);
    step_ = static_cast<const std::int64_t*>(inputs[1]);
    rows_ = static_cast<std::int32_t*>(outputs[0]);
    drawn_ = static_cast<std::uint64_t*>(scratch);
    own_ = drawn_ + words_;
  }

  void launch() override {
    const auto step = static_cast<std::uint64_t>(*step_);
    const auto first_draw = static_cast<std::uint64_t>(first_ / 4);
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (int t = 0; t < threads_; ++t) {
      const std::int64_t begin = words_ * t / threads_, end = words_ * (t + 1) / threads_;
      draw_(key_, step, first_draw + static_cast<std::uint64_t>(16 * begin), end - begin,
            threshold_, drawn_ + begin);
      std::fill(own_ + begin, own_ + end, 0);
    }
    // Draws begin at a multiple of four: bits of classes that are not this rank's go.
    if (words_ > 0) {
      drawn_[0] &= ~std::uint64_t{0} << offset_;
      const std::int64_t past = 64 * words_ - (offset_ + classes_);
      drawn_[words_ - 1] &= ~std::uint64_t{0} >> past;
    }
    std::int64_t own = 0;
    for (std::int64_t b = 0; b < batch_; ++b) {
      const std::int64_t row = labels_[b] - first_;
      if (row < 0 || row >= classes_) continue;
      std::uint64_t& word = own_[(row + offset_) / 64];
      const std::uint64_t bit = std::uint64_t{1} << ((row + offset_) % 64);
      own += (word & bit) == 0;
      word |= bit;
    }
    take(std::max<std::int64_t>(capacity_ - own, 0));
  }

 private:
  // The rows in order. The batch's own classes have their places whatever the draw says; `room` is
  // for the others.
  void take(std::int64_t room) {
    std::int64_t count = 0;
    for (std::int64_t w = 0; w < words_ && count < capacity_; ++w) {
      std::uint64_t others = drawn_[w] & ~own_[w];
      while (std::popcount(others) > room) {  // rare: the last ones go
        others &= ~(std::uint64_t{1} << (63 - std::countl_zero(others)));
      }
      room -= std::popcount(others);
      for (std::uint64_t left = others | own_[w]; left != 0; left &= left - 1) {
        if (count == capacity_) break;  // capacity below the batch's own classes
        rows_[count++] = static_cast<std::int32_t>(64 * w + std::countr_zero(left) - offset_);
      }
    }
    std::fill(rows_ + count, rows_ + capacity_, -1);
  }

  void (*draw_)(std::uint64_t, std::uint64_t, std::uint64_t, std::int64_t, std::uint32_t,
                std::uint64_t*);
  int threads_;
  std::int64_t batch_, first_, classes_, capacity_;
  std::uint64_t key_;
  std::uint32_t threshold_;
  std::int64_t offset_, words_;  // classes of the first draw that are another rank's; 64 a word
  const std::int64_t *labels_ = nullptr, *step_ = nullptr;
  std::int32_t* rows_ = nullptr;
  std::uint64_t *drawn_ = nullptr, *own_ = nullptr;
};

}  // namespace

std::unique_ptr<Kernel> make_sampling(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<SampleClasses>(node, environment);
}

}  // namespace ftrain::cpu
#endif
