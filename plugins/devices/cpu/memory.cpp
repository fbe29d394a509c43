#include "plugins/devices/cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <utility>

#include "core/base/error.h"

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
  madvise(data_, bytes, MADV_HUGEPAGE);  // a wish: without huge pages everything works
}

Memory::~Memory() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

Memory::Memory(Memory&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)),
      mapped_(other.mapped_),
      data_(std::exchange(other.data_, nullptr)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  std::swap(data_, other.data_);
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
