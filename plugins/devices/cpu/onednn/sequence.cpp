#include "plugins/devices/cpu/onednn/sequence.h"

#include "plugins/devices/cpu/onednn/onednn.h"

namespace ftrain::cpu {

using dnnl::memory;

Sequence::Sequence() : stream_(engine()) {}

Sequence::Slot Sequence::add(Home home, std::size_t place, const memory::desc& desc) {
  buffers_.push_back({home, place, memory(desc, engine(), DNNL_MEMORY_NONE)});
  return static_cast<Slot>(buffers_.size()) - 1;
}

Sequence::Slot Sequence::input(int index, const memory::desc& desc) {
  return add(Home::input, static_cast<std::size_t>(index), desc);
}

Sequence::Slot Sequence::output(int index, const memory::desc& desc) {
  return add(Home::output, static_cast<std::size_t>(index), desc);
}

Sequence::Slot Sequence::scratch(const memory::desc& desc) {
  const Slot slot = add(Home::scratch, scratch_bytes_, desc);
  scratch_bytes_ += (desc.get_size() + 63) / 64 * 64;
  return slot;
}

void Sequence::reorder(Slot from, Slot to) {
  memory& source = buffers_[static_cast<std::size_t>(from)].memory;
  memory& target = buffers_[static_cast<std::size_t>(to)].memory;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::reorder::primitive_desc desc(engine(), source.get_desc(), engine(), target.get_desc(),
                                           attributes);
  run_with_scratchpad(desc, dnnl::reorder(desc), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

Sequence::Slot Sequence::arranged(Slot from, const memory::desc& wanted) {
  if (buffers_[static_cast<std::size_t>(from)].memory.get_desc() == wanted) return from;
  const Slot to = scratch(wanted);
  reorder(from, to);
  return to;
}

Sequence::Slot Sequence::landing(Slot target, const memory::desc& made) {
  if (buffers_[static_cast<std::size_t>(target)].memory.get_desc() == made) return target;
  return scratch(made);
}

void Sequence::finish(Slot landed, Slot target) {
  if (landed != target) reorder(landed, target);
}

void Sequence::run(const dnnl::primitive& primitive,
                   const std::unordered_map<int, Slot>& arguments) {
  std::unordered_map<int, memory> memories;
  for (const auto& [name, slot] : arguments) {
    memories[name] = buffers_[static_cast<std::size_t>(slot)].memory;
  }
  steps_.push_back(
      [this, primitive, memories = std::move(memories)] { primitive.execute(stream_, memories); });
}

void Sequence::call(Slot from, Slot to, std::function<void(const float*, float*)> function) {
  const memory source = buffers_[static_cast<std::size_t>(from)].memory;
  const memory target = buffers_[static_cast<std::size_t>(to)].memory;
  steps_.push_back([source, target, function = std::move(function)] {
    function(static_cast<const float*>(source.get_data_handle()),
             static_cast<float*>(target.get_data_handle()));
  });
}

void Sequence::bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) {
  for (Buffer& buffer : buffers_) {
    void* address = nullptr;
    switch (buffer.home) {
      case Home::input:
        address = inputs[buffer.place];
        break;
      case Home::output:
        address = outputs[buffer.place];
        break;
      case Home::scratch:
        address = static_cast<char*>(scratch) + buffer.place;
        break;
    }
    buffer.memory.set_data_handle(address);
  }
}

void Sequence::launch() {
  for (const auto& step : steps_) step();
  stream_.wait();
}

}  // namespace ftrain::cpu
