// The CPU's resident tensors, each at a fixed address in its physical layout, and the working
// memory of the programs on them.
#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "ftrain/device/device.h"
#include "plugins/devices/cpu/device/memory.h"

namespace ftrain::cpu {

class Store final : public StateStore {
 public:
  // `threads`: who takes the memory's pages when something is written first, see Memory::touch.
  explicit Store(int threads = 1) : threads_(threads) {}

  // Adds the states that are missing, zeroed. DeviceError when a state of that name has another
  // type or layout. Returns `more` bytes beside them, for as long as the store lives.
  char* add(const std::vector<Graph::State>& states, std::size_t more = 0);
  // Working memory of that size. Programs run one at a time, so all that fit share one piece.
  char* workspace(std::size_t bytes);
  // `program` runs in that workspace now. Did another run there since it did last, or is this its
  // first time?
  bool enter(char* workspace, const void* program);
  // Takes the pages of all that the store has.
  void touch();

  const std::vector<Entry>& entries() const override { return entries_; }
  bool has(std::string_view name) const override { return find(name) != nullptr; }
  void read(std::string_view name, void* row_major) const override;
  void write(std::string_view name, const void* row_major) override;
  void read_part(std::string_view name, std::size_t first, std::size_t count,
                 void* row_major) const override;
  void write_part(std::string_view name, std::size_t first, std::size_t count,
                  const void* row_major) override;

  const Entry* find(std::string_view name) const;
  void* address(std::string_view name) const;

 private:
  std::size_t index_of(std::string_view name) const;

  std::vector<Entry> entries_;
  std::vector<char*> addresses_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::vector<Memory> memory_, workspaces_;
  std::unordered_map<char*, const void*> last_;  // the program that ran last in a workspace
  int threads_;
};

}  // namespace ftrain::cpu
