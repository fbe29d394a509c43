#include "plugins/devices/cuda/device/store.h"

#include <cstring>
#include <utility>

#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "plugins/devices/cuda/device/order.h"
#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {
namespace {

bool is_on_host(const StateSpec& spec) {
  return spec.memory == StateSpec::Memory::host;
}

}  // namespace

std::size_t Store::missing_bytes(const std::vector<Graph::State>& states) const {
  std::size_t bytes = 0;
  for (const Graph::State& state : states) {
    const StateSpec& spec = state.spec;
    if (const Entry* entry = find(spec.name)) {
      if (entry->spec.type == spec.type) continue;
      throw DeviceError("state '" + spec.name + "' is " + entry->spec.type.text() +
                        " in the store and " + spec.type.text() +
                        " in the program; prepare the program with this store");
    }
    if (!is_on_host(spec)) bytes += aligned_bytes(spec.type.bytes());
  }
  return bytes;
}

std::size_t Store::workspace_bytes(std::size_t bytes) const {
  for (const DeviceMemory& memory : workspaces_) {
    if (memory.bytes() >= bytes) return 0;
  }
  return bytes;
}

char* Store::add(const std::vector<Graph::State>& states, std::size_t more) {
  const std::size_t on_device = missing_bytes(states) + more;
  std::size_t on_host = 0;
  std::vector<const StateSpec*> missing;
  for (const Graph::State& state : states) {
    if (find(state.spec.name) != nullptr) continue;
    missing.push_back(&state.spec);
    if (is_on_host(state.spec)) on_host += aligned_bytes(state.spec.type.bytes());
  }
  DeviceMemory device(on_device, "holding the parameters and the optimizer's state");
  PinnedMemory host(on_host, "holding the class centers and their optimizer's state");
  if (on_device > 0) {
    check(cudaMemsetAsync(device.data(), 0, on_device, machine_.main), "clearing the states");
  }
  if (on_host > 0) std::memset(host.data(), 0, on_host);
  char *on_gpu = device.data(), *pinned = host.data();
  for (const StateSpec* spec : missing) {
    char*& place = is_on_host(*spec) ? pinned : on_gpu;
    by_name_.emplace(spec->name, entries_.size());
    entries_.push_back({*spec, spec->type.bytes()});
    addresses_.push_back(place);
    place += aligned_bytes(spec->type.bytes());
  }
  memory_.push_back(std::move(device));
  host_.push_back(std::move(host));
  return on_gpu;
}

char* Store::workspace(std::size_t bytes) {
  for (const DeviceMemory& memory : workspaces_) {
    if (memory.bytes() >= bytes) return memory.data();
  }
  workspaces_.emplace_back(bytes, "the program's arena");
  return workspaces_.back().data();
}

bool Store::enter(char* workspace, const void* program) {
  return std::exchange(last_[workspace], program) != program;
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

char* Store::address(std::string_view name) const {
  return addresses_[index_of(name)];
}

void Store::copy_out(std::size_t index, std::size_t first, std::size_t bytes, void* to) const {
  machine_.gpu.use();
  const StateSpec& spec = entries_[index].spec;
  const std::string what = "state '" + spec.name + "'";
  if (!is_on_host(spec)) {
    staging_.to_host(to, addresses_[index] + first, bytes, machine_.main, what);
    return;
  }
  finish(machine_.main, "reading " + what);
  std::memcpy(to, addresses_[index] + first, bytes);
}

void Store::copy_in(std::size_t index, std::size_t first, std::size_t bytes, const void* from) {
  machine_.gpu.use();
  ++writes_;
  const StateSpec& spec = entries_[index].spec;
  const std::string what = "state '" + spec.name + "'";
  if (!is_on_host(spec)) {
    staging_.to_device(addresses_[index] + first, from, bytes, machine_.main, what);
    return;
  }
  finish(machine_.main, "writing " + what);
  std::memcpy(addresses_[index] + first, from, bytes);
}

void Store::read(std::string_view name, void* row_major) const {
  const std::size_t i = index_of(name);
  const TensorType& type = entries_[i].spec.type;
  if (is_row_major(type)) return copy_out(i, 0, type.bytes(), row_major);
  std::vector<char> whole(type.bytes());
  copy_out(i, 0, whole.size(), whole.data());
  to_row_major(type, whole.data(), row_major);
}

void Store::write(std::string_view name, const void* row_major) {
  const std::size_t i = index_of(name);
  const TensorType& type = entries_[i].spec.type;
  if (is_row_major(type)) return copy_in(i, 0, type.bytes(), row_major);
  std::vector<char> whole(type.bytes());
  from_row_major(type, row_major, whole.data());
  copy_in(i, 0, whole.size(), whole.data());
}

void Store::read_part(std::string_view name, std::size_t first, std::size_t count,
                      void* row_major) const {
  const std::size_t i = index_of(name);
  const TensorType& type = entries_[i].spec.type;
  if (!is_row_major(type)) return StateStore::read_part(name, first, count, row_major);
  const std::size_t size = size_of(type.dtype);
  copy_out(i, first * size, count * size, row_major);
}

void Store::write_part(std::string_view name, std::size_t first, std::size_t count,
                       const void* row_major) {
  const std::size_t i = index_of(name);
  const TensorType& type = entries_[i].spec.type;
  if (count == static_cast<std::size_t>(type.shape.elements())) return write(name, row_major);
  if (!is_row_major(type)) return StateStore::write_part(name, first, count, row_major);
  const std::size_t size = size_of(type.dtype);
  copy_in(i, first * size, count * size, row_major);
}

}  // namespace ftrain::cuda
