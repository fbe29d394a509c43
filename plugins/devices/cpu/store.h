// The CPU's resident tensors, each at a fixed address in its physical layout.
#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/runtime/device.h"
#include "plugins/devices/cpu/memory.h"

namespace ftrain::cpu {

class Store final : public StateStore {
 public:
  // Adds the states that are missing, zeroed. DeviceError when a state of that name has another
  // type or layout.
  void add(const std::vector<Graph::State>& states);

  const std::vector<Entry>& entries() const override { return entries_; }
  bool has(std::string_view name) const override { return find(name) != nullptr; }
  void read(std::string_view name, void* row_major) const override;
  void write(std::string_view name, const void* row_major) override;

  const Entry* find(std::string_view name) const;
  void* address(std::string_view name) const;

 private:
  std::size_t index_of(std::string_view name) const;

  std::vector<Entry> entries_;
  std::vector<char*> addresses_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::vector<Memory> memory_;
};

}  // namespace ftrain::cpu
