// The GPU's resident tensors, each at a fixed address in its physical order, and the working memory
// of the programs on them. States that ask for the host's memory lie there, pinned, at an address
// that the GPU has too.
//
// Reads and writes go through two small pinned pieces whatever the tensor's size; those of tensors
// in another order than row-major hold the whole tensor on the host meanwhile.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "ftrain/device/device.h"
#include "plugins/devices/cuda/runtime/machine.h"
#include "plugins/devices/cuda/runtime/memory.h"
#include "plugins/devices/cuda/runtime/staging.h"

namespace ftrain::cuda {

// Of every tensor's address.
inline constexpr std::size_t alignment = 256;
inline std::size_t aligned_bytes(std::size_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

class Store final : public StateStore {
 public:
  explicit Store(Machine& machine) : machine_(machine) {}

  // GPU memory that add() and workspace() would take. DeviceError when a state of that name has
  // another type or layout.
  std::size_t missing_bytes(const std::vector<Graph::State>& states) const;
  std::size_t workspace_bytes(std::size_t bytes) const;

  // Adds the states that are missing, zeroed. Returns `more` bytes beside them, zeroed too, for as
  // long as the store lives.
  char* add(const std::vector<Graph::State>& states, std::size_t more = 0);
  // Working memory of that size. Programs run one at a time, so all that fit share one piece.
  char* workspace(std::size_t bytes);
  // `program` runs in that workspace now. Did another run there since it did last, or is this its
  // first time?
  bool enter(char* workspace, const void* program);
  // How often a state was written from outside.
  std::uint64_t writes() const { return writes_; }

  const std::vector<Entry>& entries() const override { return entries_; }
  bool has(std::string_view name) const override { return by_name_.count(std::string(name)) > 0; }
  void read(std::string_view name, void* row_major) const override;
  void write(std::string_view name, const void* row_major) override;
  void read_part(std::string_view name, std::size_t first, std::size_t count,
                 void* row_major) const override;
  void write_part(std::string_view name, std::size_t first, std::size_t count,
                  const void* row_major) override;

  char* address(std::string_view name) const;
  Staging& staging() const { return staging_; }

 private:
  const Entry* find(std::string_view name) const;
  std::size_t index_of(std::string_view name) const;
  // Bytes as they lie.
  void copy_out(std::size_t index, std::size_t first, std::size_t bytes, void* to) const;
  void copy_in(std::size_t index, std::size_t first, std::size_t bytes, const void* from);

  Machine& machine_;
  std::vector<Entry> entries_;
  std::vector<char*> addresses_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::vector<DeviceMemory> memory_, workspaces_;
  std::vector<PinnedMemory> host_;
  std::unordered_map<char*, const void*> last_;  // the program that ran last in a workspace
  std::uint64_t writes_ = 0;
  mutable Staging staging_;
};

}  // namespace ftrain::cuda
