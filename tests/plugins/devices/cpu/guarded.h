// A buffer between guard bytes: who writes past its ends is found out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ftrain::cpu {

class Guarded {
 public:
  static constexpr std::size_t margin = 128, around = 2 * margin + 64;
  // Around what a kernel reads stand floats near the largest: what is read too far shows in the
  // result, and differs from the guards of what is written.
  static constexpr std::uint8_t write_guard = 0xA5, read_guard = 0x7F;

  // 64-byte aligned data, all ones: NaN in every floating type, so what is not written is seen.
  explicit Guarded(std::size_t bytes, std::uint8_t guard = write_guard)
      : size_(bytes), guard_(guard), memory_(bytes + around, 0xFF) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data()) + margin;
    begin_ = margin + (64 - address % 64) % 64;
    std::memset(memory_.data(), guard, begin_);
    std::memset(memory_.data() + begin_ + bytes, guard, around - begin_);
  }
  Guarded(std::size_t bytes, const void* from) : Guarded(bytes, read_guard) {
    if (bytes > 0) std::memcpy(data(), from, bytes);
  }
  Guarded(Guarded&&) = default;  // a vector's memory does not move with it
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  void* data() { return memory_.data() + begin_; }
  const void* data() const { return memory_.data() + begin_; }
  std::size_t size() const { return size_; }

  bool intact() const {
    const auto is_guard = [this](std::uint8_t byte) { return byte == guard_; };
    const auto begin = memory_.begin() + static_cast<std::ptrdiff_t>(begin_);
    return std::all_of(memory_.begin(), begin, is_guard) &&
           std::all_of(begin + static_cast<std::ptrdiff_t>(size_), memory_.end(), is_guard);
  }
  bool equals(const void* bytes) const {
    return size_ == 0 || std::memcmp(data(), bytes, size_) == 0;
  }

 private:
  std::size_t size_, begin_ = 0;
  std::uint8_t guard_;
  std::vector<std::uint8_t> memory_;
};

}  // namespace ftrain::cpu
