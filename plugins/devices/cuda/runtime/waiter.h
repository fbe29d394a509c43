// How the host waits for a stream whose kernels may wait for other ranks.
#pragma once

#include <string_view>

#include "ftrain/device/communicator.h"
#include "plugins/devices/cuda/runtime/machine.h"

namespace ftrain::cuda {

class Waiter {
 public:
  // `communicator` may be null: no rank waits for another.
  Waiter(Machine& machine, Communicator* communicator)
      : machine_(machine),
        on_device_(shared(communicator) ? communicator->device_collectives() : nullptr),
        through_host_(shared(communicator) && on_device_ == nullptr) {}

  // Whether the communicator is called while the step runs: it is the rank's own again when that
  // is over.
  bool through_host() const { return through_host_; }

  // Throws what went wrong meanwhile: CommunicationError, DeviceError.
  void wait(const Event& event, std::string_view doing) const {
    const auto wait = [&] { event.wait(doing); };
    on_device_ != nullptr ? on_device_->wait(wait) : wait();
    machine_.raise();
  }

 private:
  static bool shared(const Communicator* communicator) {
    return communicator != nullptr && communicator->size() > 1;
  }

  Machine& machine_;
  DeviceCollectives* on_device_;
  bool through_host_;
};

}  // namespace ftrain::cuda
