#include "plugins/devices/cuda/device/upload.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "plugins/devices/cuda/runtime/check.h"

namespace ftrain::cuda {

Uploads::Uploads(Machine& machine, const Waiter& waiter, std::vector<Input> inputs, char* target,
                 std::size_t bytes)
    : machine_(machine),
      waiter_(waiter),
      inputs_(std::move(inputs)),
      target_(target),
      pinned_(places * bytes, "the ring of inputs"),
      device_(places * bytes, "the ring of inputs"),
      ring_(places) {
  for (std::size_t i = 0; i < places; ++i) {
    Place& place = ring_[i];
    place.pinned = pinned_.data() + i * bytes;
    place.device = device_.data() + i * bytes;
    place.written.assign(inputs_.size(), false);
  }
}

// The place of the next step, once the step that used it before is done.
Uploads::Place& Uploads::enter() {
  Place& place = ring_[now_];
  if (!entered_) waiter_.wait(place.done, "waiting for an earlier step");
  entered_ = true;
  return place;
}

void Uploads::write(std::size_t input, const void* data) {
  Place& place = enter();
  const Input& at = inputs_[input];
  // Of an input that is replaced the first copy may still be under way, and torn: the second one
  // comes behind it.
  std::memcpy(place.pinned + at.offset, data, at.bytes);
  check(cudaMemcpyAsync(place.device + at.offset, place.pinned + at.offset, at.bytes,
                        cudaMemcpyHostToDevice, machine_.uploads),
        "copying an input to the GPU");
  place.written[input] = true;
}

void Uploads::begin() {
  Place& place = enter();
  if (std::find(place.written.begin(), place.written.end(), true) == place.written.end()) return;
  place.uploaded.record(machine_.uploads);
  wait_for(machine_.main, place.uploaded);
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (!place.written[i]) continue;
    check(cudaMemcpyAsync(target_ + inputs_[i].offset, place.device + inputs_[i].offset,
                          inputs_[i].bytes, cudaMemcpyDeviceToDevice, machine_.main),
          "handing an input to the step");
    place.written[i] = false;
  }
}

void Uploads::end() {
  ring_[now_].done.record(machine_.main);
  now_ = (now_ + 1) % places;
  entered_ = false;
}

}  // namespace ftrain::cuda
