#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "core/base/mapped_file.h"
#include "cuda_runtime.h"
#include "tests/cuda/standin/block.h"

namespace standin {
namespace {

std::mutex turns;
Settings settings;
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

}  // namespace

void set(const Settings& wanted) {
  const std::scoped_lock lock(turns);
  settings = wanted;
}

std::string name_of_kernel(const void* kernel) {
  const std::string mangled = mangled_name(kernel);
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  return plain ? plain.get() : mangled;
}

cudaError_t check_launch(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3& threads = config.blockDim;
  const dim3& blocks = config.gridDim;
  const bool fits = threads.x <= most_threads && threads.y <= most_threads && threads.z <= 64 &&
                    threads.x * threads.y * threads.z - 1 < most_threads &&
                    blocks.x - 1 < 0x7fffffffu && blocks.y - 1 < 65535 && blocks.z - 1 < 65535;
  if (!fits) return cudaErrorInvalidConfiguration;
  const std::scoped_lock lock(turns);
  const auto allowed = allowed_shared.find(kernel);
  const std::size_t most = allowed != allowed_shared.end() ? allowed->second : 48 << 10;
  return config.dynamicSmemBytes <= most ? cudaSuccess : cudaErrorInvalidValue;
}

void run(const cudaLaunchConfig_t& config, const void* kernel, void (*body)(void*), void* context) {
  static Machine machine;
  const std::scoped_lock lock(turns);
  machine.run(config, kernel, body, context, settings);
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

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDeviceFunction:
      return "invalid device function";
  }
  return "unrecognized error code";
}

// Errors are given where they arise and not kept.
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
cudaError_t cudaPeekAtLastError() {
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  if (bytes > 0) std::memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}

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
  if (value < 0 || static_cast<std::size_t>(value) > standin::most_shared) {
    return cudaErrorInvalidValue;
  }
  const std::scoped_lock lock(standin::turns);
  standin::allowed_shared[function] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
