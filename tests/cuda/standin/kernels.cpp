#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "cuda_runtime.h"
#include "ftrain/base/mapped_file.h"
#include "tests/cuda/standin/block.h"
#include "tests/cuda/standin/calls.h"
#include "tests/cuda/standin/queue.h"
#include "tests/cuda/standin/streams.h"

namespace standin {
namespace {

// What a kernel may take of shared memory without being allowed more.
constexpr std::size_t unasked_shared = 48 << 10;
std::mutex shared_mutex;
std::map<const void*, std::size_t> allowed_shared;

// The name of a function in a file's table of symbols, which knows those of one file alone too.
std::string name_in(const std::string& file, std::uintptr_t offset) {
  const ftrain::MappedFile mapped(file);
  const auto* const base = reinterpret_cast<const char*>(mapped.bytes().data());
  const auto* const header = reinterpret_cast<const ElfW(Ehdr)*>(base);
  const auto* const sections = reinterpret_cast<const ElfW(Shdr)*>(base + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const auto* const symbols = reinterpret_cast<const ElfW(Sym)*>(base + sections[i].sh_offset);
    const char* const names = base + sections[sections[i].sh_link].sh_offset;
    for (std::size_t s = 0; s < sections[i].sh_size / sizeof(*symbols); ++s) {
      if (symbols[s].st_value != offset || ELF64_ST_TYPE(symbols[s].st_info) != STT_FUNC) continue;
      return names + symbols[s].st_name;
    }
  }
  return {};
}

std::string mangled_name(const void* function) {
  Dl_info module;
  link_map* map = nullptr;
  if (dladdr1(function, &module, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0) return {};
  const std::string file = map->l_name[0] != 0 ? map->l_name : "/proc/self/exe";
  return name_in(file, reinterpret_cast<std::uintptr_t>(function) - map->l_addr);
}

// As if code were there for sm_80 and newer.
bool has_code() {
  return hardware().major >= 8;
}

cudaError_t check_launch(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3& threads = config.blockDim;
  const dim3& blocks = config.gridDim;
  const bool fits = threads.x <= most_threads && threads.y <= most_threads && threads.z <= 64 &&
                    threads.x * threads.y * threads.z - 1 < most_threads &&
                    blocks.x - 1 < 0x7fffffffu && blocks.y - 1 < 65535 && blocks.z - 1 < 65535;
  if (!fits) return cudaErrorInvalidConfiguration;
  if (!has_code()) return cudaErrorNoKernelImageForDevice;
  const std::scoped_lock lock(shared_mutex);
  const auto allowed = allowed_shared.find(kernel);
  const std::size_t most = allowed != allowed_shared.end() ? allowed->second : unasked_shared;
  return config.dynamicSmemBytes <= most ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

std::string name_of_kernel(const void* kernel) {
  const std::string mangled = mangled_name(kernel);
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  return plain ? plain.get() : mangled;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> work) {
  return answer("cudaLaunchKernelEx", [&] {
    if (const cudaError_t error = check_launch(config, kernel)) return error;
    return put_into(config.stream, {[work = std::move(work)] {
                      if (const cudaError_t error = injected("kernel")) {
                        set_sticky(error);
                      } else {
                        work();
                      }
                    }});
  });
}

void run(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*), void* context) {
  static Machine* const machine = new Machine;  // engines outlive main()
  const std::scoped_lock lock(turns());
  machine->run(config, kernel, body, context, settings());
}

// ---- the words of kernels
int meet_block(bool yes, const char* word, const Where& where) {
  return active->meet_block(yes, word, where);
}
const std::uint64_t* meet_warp(unsigned mask, std::uint64_t value, int source, const char* word,
                               const Where& where) {
  return active->meet_warp(mask, value, source, word, where);
}
int lane() {
  return active->lane();
}
void trap(const Where& where) {
  active->fail([&] { return "comes to __trap in line " + std::to_string(where.line()); });
}
void check_atomic(const void* address, std::size_t bytes) {
  active->atomic(reinterpret_cast<std::uintptr_t>(address), bytes);
}

}  // namespace standin

using standin::answer;

cudaError_t cudaFuncGetName(const char** name, const void* function) {
  static std::mutex mutex;
  static std::map<const void*, std::string> names;
  const std::scoped_lock lock(mutex);
  const auto [at, fresh] = names.try_emplace(function);
  if (fresh) at->second = standin::mangled_name(function);
  if (at->second.empty()) return cudaErrorInvalidDeviceFunction;
  *name = at->second.c_str();
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int value) {
  return answer("cudaFuncSetAttribute", [&] {
    if (value < 0 || static_cast<std::size_t>(value) > standin::most_shared) {
      return cudaErrorInvalidValue;
    }
    const std::scoped_lock lock(standin::shared_mutex);
    standin::allowed_shared[function] = static_cast<std::size_t>(value);
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return answer("cudaFuncGetAttributes", [&] {
    const standin::Hardware hardware = standin::hardware();
    if (!standin::has_code()) return cudaErrorNoKernelImageForDevice;
    const int version = 10 * hardware.major + hardware.minor;
    const std::scoped_lock lock(standin::shared_mutex);
    const auto allowed = standin::allowed_shared.find(function);
    *attributes = {};
    attributes->maxThreadsPerBlock = standin::most_threads;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = version;
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(
        allowed != standin::allowed_shared.end() ? allowed->second : standin::unasked_shared);
    return cudaSuccess;
  });
}
