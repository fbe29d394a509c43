#include "plugins/devices/cpu/device/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain::cpu {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

std::size_t physical_bytes() {
  return static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

Memory::Memory(std::size_t bytes, const std::string& purpose) {
  if (bytes == 0) return;
  const std::size_t physical = physical_bytes();
  mapped_ = bytes + huge_page;
  if (bytes <= physical) {
    mapping_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (mapping_ == nullptr || mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw DeviceError(purpose + " needs " + bytes_text(bytes) + " of memory, and the machine has " +
                      bytes_text(physical) + "; lower the batch per rank or use more ranks");
  }
  const auto address = reinterpret_cast<std::uintptr_t>(mapping_);
  data_ = reinterpret_cast<char*>((address + huge_page - 1) / huge_page * huge_page);
  bytes_ = bytes;
  madvise(data_, bytes, MADV_HUGEPAGE);  // a wish: without huge pages everything works
}

void Memory::touch(int threads) {
  if (touched_) return;
  touched_ = true;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const auto runs = static_cast<std::int64_t>((bytes_ + huge_page - 1) / huge_page);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (std::int64_t run = 0; run < runs; ++run) {
    const std::size_t first = static_cast<std::size_t>(run) * huge_page;
    for (std::size_t at = first; at < std::min(bytes_, first + huge_page); at += page) {
      volatile char& byte = data_[at];
      byte = byte;
    }
  }
}

Memory::~Memory() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

Memory::Memory(Memory&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)),
      mapped_(other.mapped_),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(other.bytes_),
      touched_(other.touched_) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(touched_, other.touched_);
  return *this;
}

std::string bytes_text(std::size_t bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (amount >= 1024 && unit + 1 < std::size(units)) {
    amount /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", amount, units[unit]);
  return text;
}

}  // namespace ftrain::cpu
