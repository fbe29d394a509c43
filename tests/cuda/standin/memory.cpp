#include "tests/cuda/standin/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include "tests/cuda/standin/calls.h"
#include "tests/cuda/standin/queue.h"
#include "tests/cuda/standin/standin.h"

namespace standin {
namespace {

constexpr std::size_t page = 4096, granule = 512;
// Of larger allocations only the ends are filled: tests of what does not fit would take long.
constexpr std::size_t most_poison = 256 << 20, poisoned_end = 1 << 20;

// Closing takes time by the page: more memory than this is closed now and then only.
constexpr std::size_t quick_to_close = 1 << 20;
constexpr unsigned closed_once_in = 64;

std::size_t up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// NaN in every floating type.
void poison(std::byte* data, std::size_t bytes) {
  if (bytes <= most_poison) {
    std::memset(data, 0xff, bytes);
  } else {
    std::memset(data, 0xff, poisoned_end);
    std::memset(data + bytes - poisoned_end, 0xff, poisoned_end);
  }
}

// Pages that nobody may touch before and after it, and bytes that no kernel may up to the page's
// end.
class Allocation {
 public:
  Allocation(int device, std::size_t bytes)
      : device_(device), bytes_(bytes), mapped_(up(bytes, page) + 2 * page) {
    void* const memory =
        mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<std::byte*>(memory);
    allow(true);
    poison(data(), bytes);
    rest_ = std::make_unique<Forbidden>(data() + bytes, up(bytes, page) - bytes);
  }
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;
  ~Allocation() {
    rest_.reset();
    munmap(memory_, mapped_);
  }

  std::byte* data() const { return memory_ + page; }
  std::size_t bytes() const { return bytes_; }
  std::size_t taken() const { return up(bytes_, granule); }
  int device() const { return device_; }
  void allow(bool allowed) const {
    mprotect(data(), mapped_ - 2 * page, allowed ? PROT_READ | PROT_WRITE : PROT_NONE);
  }

 private:
  int device_;
  std::size_t bytes_, mapped_;
  std::byte* memory_ = nullptr;
  std::unique_ptr<Forbidden> rest_;
};

struct Pinned {
  std::size_t bytes;
  bool ours;  // by cudaHostAlloc
};

struct Memory {
  std::mutex mutex;
  int users = 0;         // who need it open
  bool is_open = false;  // true also where closing it was not worth the time
  unsigned closings = 0;
  std::map<const std::byte*, std::unique_ptr<Allocation>> of_device;
  std::map<const std::byte*, Pinned> pinned;

  // Never destroyed: engines outlive main().
  static Memory& all() {
    static Memory* const memory = new Memory;
    return *memory;
  }
  std::size_t used(int device) const {
    std::size_t sum = 0;
    for (const auto& [address, each] : of_device) {
      if (each->device() == device) sum += each->taken();
    }
    return sum;
  }
};

// The element of a map by address that begins at or before `at`.
template <class Map>
auto at_or_before(const Map& map, const void* at) {
  const auto after = map.upper_bound(static_cast<const std::byte*>(at));
  return after == map.begin() ? map.end() : std::prev(after);
}

cudaError_t allocate_host(void** address, std::size_t bytes) {
  if (const cudaError_t error = refuse_while_capturing()) return error;
  if (bytes == 0) return *address = nullptr, cudaSuccess;
  auto* const made = static_cast<std::byte*>(std::aligned_alloc(page, up(bytes, page)));
  if (made == nullptr) return cudaErrorMemoryAllocation;
  poison(made, bytes);
  Memory& memory = Memory::all();
  const std::scoped_lock lock(memory.mutex);
  memory.pinned[made] = {bytes, true};
  *address = made;
  return cudaSuccess;
}

cudaError_t unpin(void* address, bool ours) {
  if (const cudaError_t error = refuse_while_capturing()) return error;
  wait_for_all();
  Memory& memory = Memory::all();
  const std::scoped_lock lock(memory.mutex);
  const auto found = memory.pinned.find(static_cast<const std::byte*>(address));
  if (found == memory.pinned.end() || found->second.ours != ours) {
    return ours ? cudaErrorInvalidValue : cudaErrorHostMemoryNotRegistered;
  }
  memory.pinned.erase(found);
  if (ours) std::free(address);
  return cudaSuccess;
}

}  // namespace

void open_memory() {
  Memory& memory = Memory::all();
  const std::scoped_lock lock(memory.mutex);
  ++memory.users;
  if (std::exchange(memory.is_open, true)) return;
  for (const auto& [address, each] : memory.of_device) each->allow(true);
}
void close_memory() {
  Memory& memory = Memory::all();
  const std::scoped_lock lock(memory.mutex);
  if (--memory.users > 0) return;
  std::size_t bytes = 0;
  for (const auto& [address, each] : memory.of_device) bytes += each->bytes();
  if (bytes > quick_to_close && ++memory.closings % closed_once_in != 0) return;
  memory.is_open = false;
  for (const auto& [address, each] : memory.of_device) each->allow(false);
}

Place place_of(const void* address, std::size_t bytes) {
  Memory& memory = Memory::all();
  const std::scoped_lock lock(memory.mutex);
  const auto* const begin = static_cast<const std::byte*>(address);
  const auto device = at_or_before(memory.of_device, address);
  if (device != memory.of_device.end() && begin < device->first + device->second->bytes()) {
    return Place::device;
  }
  const auto pinned = at_or_before(memory.pinned, address);
  if (pinned != memory.pinned.end() && begin + bytes <= pinned->first + pinned->second.bytes) {
    return Place::pinned;
  }
  return Place::pageable;
}
bool leaves_allocation(const void* address, std::size_t bytes) {
  Memory& memory = Memory::all();
  const std::scoped_lock lock(memory.mutex);
  const auto* const begin = static_cast<const std::byte*>(address);
  const auto device = at_or_before(memory.of_device, address);
  if (device == memory.of_device.end()) return false;
  const std::byte* const end = device->first + device->second->bytes();
  return begin < end && begin + bytes > end;
}

}  // namespace standin

using standin::answer;

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return answer("cudaMemGetInfo", [&] {
    standin::Memory& memory = standin::Memory::all();
    const std::scoped_lock lock(memory.mutex);
    *total = standin::hardware().memory;
    *free = *total - std::min(*total, memory.used(standin::current_device()));
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  return answer("cudaMalloc", [&] {
    if (const cudaError_t error = standin::refuse_while_capturing()) return error;
    if (bytes == 0) return *address = nullptr, cudaSuccess;
    standin::Memory& memory = standin::Memory::all();
    const int device = standin::current_device();
    const std::size_t most = standin::hardware().memory;
    {
      const std::scoped_lock lock(memory.mutex);
      if (bytes > most || memory.used(device) + bytes > most) return cudaErrorMemoryAllocation;
    }
    auto made = std::make_unique<standin::Allocation>(device, bytes);
    *address = made->data();
    const std::scoped_lock lock(memory.mutex);
    if (!memory.is_open) made->allow(false);
    memory.of_device[made->data()] = std::move(made);
    return cudaSuccess;
  });
}

// Waits for what may still use it, as CUDA does.
cudaError_t cudaFree(void* address) {
  return answer("cudaFree", [&] {
    if (const cudaError_t error = standin::refuse_while_capturing()) return error;
    if (address == nullptr) return cudaSuccess;
    standin::wait_for_all();
    standin::Memory& memory = standin::Memory::all();
    std::unique_ptr<standin::Allocation> gone;  // with the lock released
    const std::scoped_lock lock(memory.mutex);
    const auto found = memory.of_device.find(static_cast<const std::byte*>(address));
    if (found == memory.of_device.end()) return cudaErrorInvalidValue;
    gone = std::move(found->second);
    memory.of_device.erase(found);
    return cudaSuccess;
  });
}

cudaError_t cudaMallocHost(void** address, std::size_t bytes) {
  return answer("cudaMallocHost", [&] { return standin::allocate_host(address, bytes); });
}
cudaError_t cudaHostAlloc(void** address, std::size_t bytes, unsigned) {
  return answer("cudaHostAlloc", [&] { return standin::allocate_host(address, bytes); });
}
cudaError_t cudaFreeHost(void* address) {
  return answer("cudaFreeHost",
                [&] { return address == nullptr ? cudaSuccess : standin::unpin(address, true); });
}
cudaError_t cudaHostRegister(void* address, std::size_t bytes, unsigned) {
  return answer("cudaHostRegister", [&] {
    if (const cudaError_t error = standin::refuse_while_capturing()) return error;
    if (address == nullptr || bytes == 0) return cudaErrorInvalidValue;
    standin::Memory& memory = standin::Memory::all();
    const std::scoped_lock lock(memory.mutex);
    const auto* const begin = static_cast<const std::byte*>(address);
    const auto before = standin::at_or_before(memory.pinned, begin + bytes - 1);
    if (before != memory.pinned.end() && before->first + before->second.bytes > begin) {
      return cudaErrorHostMemoryAlreadyRegistered;
    }
    memory.pinned[begin] = {bytes, false};
    return cudaSuccess;
  });
}
cudaError_t cudaHostUnregister(void* address) {
  return answer("cudaHostUnregister", [&] { return standin::unpin(address, false); });
}
