#include "plugins/devices/cpu/device/store.h"

#include <cstring>
#include <utility>

#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "plugins/devices/cpu/onednn/onednn.h"

namespace ftrain::cpu {

char* Store::add(const std::vector<Graph::State>& states, std::size_t more) {
  constexpr std::size_t alignment = 64;
  std::vector<const StateSpec*> missing;
  std::size_t total = 0;
  for (const Graph::State& state : states) {
    const StateSpec& spec = state.spec;
    if (const Entry* entry = find(spec.name)) {
      if (entry->spec.type == spec.type) continue;
      throw DeviceError("state '" + spec.name + "' is " + entry->spec.type.text() +
                        " in the store and " + spec.type.text() +
                        " in the program; prepare the program with this store");
    }
    missing.push_back(&spec);
    total += (spec.type.bytes() + alignment - 1) / alignment * alignment;
  }
  if (total + more == 0) return nullptr;
  memory_.emplace_back(total + more, "holding the parameters and the optimizer's state");
  char* place = memory_.back().data();
  for (const StateSpec* spec : missing) {
    by_name_.emplace(spec->name, entries_.size());
    entries_.push_back({*spec, spec->type.bytes()});
    addresses_.push_back(place);
    place += (spec->type.bytes() + alignment - 1) / alignment * alignment;
  }
  return place;
}

char* Store::workspace(std::size_t bytes) {
  for (const Memory& memory : workspaces_) {
    if (memory.bytes() >= bytes) return memory.data();
  }
  workspaces_.emplace_back(bytes, "the program's arena");
  return workspaces_.back().data();
}

bool Store::enter(char* workspace, const void* program) {
  return std::exchange(last_[workspace], program) != program;
}

void Store::touch() {
  for (Memory& memory : memory_) memory.touch(threads_);
  for (Memory& memory : workspaces_) memory.touch(threads_);
}

const StateStore::Entry* Store::find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &entries_[it->second];
}

std::size_t Store::index_of(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  if (it != by_name_.end()) return it->second;
  std::vector<std::string> names;
  for (const Entry& entry : entries_) names.push_back(entry.spec.name);
  throw DeviceError("no state '" + std::string(name) + "' in the store" +
                    did_you_mean(name, names));
}

void* Store::address(std::string_view name) const {
  return addresses_[index_of(name)];
}

void Store::read(std::string_view name, void* row_major) const {
  const std::size_t i = index_of(name);
  copy_to_row_major(entries_[i].spec.type, addresses_[i], row_major);
}

void Store::write(std::string_view name, const void* row_major) {
  for (Memory& memory : memory_) memory.touch(threads_);
  const std::size_t i = index_of(name);
  copy_from_row_major(entries_[i].spec.type, row_major, addresses_[i]);
}

void Store::read_part(std::string_view name, std::size_t first, std::size_t count,
                      void* row_major) const {
  const std::size_t i = index_of(name);
  const TensorType& type = entries_[i].spec.type;
  if (!type.layout.empty()) return StateStore::read_part(name, first, count, row_major);
  const std::size_t size = size_of(type.dtype);
  std::memcpy(row_major, addresses_[i] + first * size, count * size);
}

void Store::write_part(std::string_view name, std::size_t first, std::size_t count,
                       const void* row_major) {
  const std::size_t i = index_of(name);
  const TensorType& type = entries_[i].spec.type;
  if (count == static_cast<std::size_t>(type.shape.elements())) return write(name, row_major);
  if (!type.layout.empty()) return StateStore::write_part(name, first, count, row_major);
  for (Memory& memory : memory_) memory.touch(threads_);
  const std::size_t size = size_of(type.dtype);
  std::memcpy(addresses_[i] + first * size, row_major, count * size);
}

}  // namespace ftrain::cpu
