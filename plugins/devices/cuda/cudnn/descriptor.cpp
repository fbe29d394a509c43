#include "plugins/devices/cuda/cudnn/descriptor.h"

#include <algorithm>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain::cuda {

std::string cudnn_version() {
  const std::size_t version = cudnnGetVersion();
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

namespace {

// cuDNN's, which it forgets by that.
std::string last_message() {
  char message[1024] = "";
  cudnnGetLastErrorString(message, sizeof message);
  return message;
}

}  // namespace

void check_cudnn(cudnnStatus_t status, std::string_view what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  const std::string message = last_message();
  std::string text = "cuDNN " + cudnn_version() + " cannot " + std::string(what) + ": " +
                     cudnnGetErrorString(status);
  if (!message.empty()) text += ": " + message;
  throw DeviceError(text);
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  check_cudnn(cudnnBackendCreateDescriptor(type, &descriptor_), "make a descriptor");
}

Descriptor::~Descriptor() {
  if (descriptor_ != nullptr) cudnnBackendDestroyDescriptor(descriptor_);
}

Descriptor::Descriptor(Descriptor&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, nullptr)) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     std::int64_t count, const void* values) {
  check_cudnn(cudnnBackendSetAttribute(descriptor_, name, type, count, values),
              "take attribute " + std::to_string(name));
}

void Descriptor::set(cudnnBackendAttributeName_t name, std::int64_t value) {
  set(name, CUDNN_TYPE_INT64, 1, &value);
}

void Descriptor::set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values) {
  set(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(values.size()), values.data());
}

void Descriptor::set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
  set(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

void Descriptor::set(cudnnBackendAttributeName_t name, const Descriptor& value) {
  set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.descriptor_);
}

void Descriptor::set(cudnnBackendAttributeName_t name, std::span<const Descriptor> values) {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const Descriptor& value : values) raw.push_back(value.descriptor_);
  set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(raw.size()), raw.data());
}

void Descriptor::finalize(std::string_view what) {
  check_cudnn(cudnnBackendFinalize(descriptor_), what);
}

bool Descriptor::try_finalize() {
  if (cudnnBackendFinalize(descriptor_) == CUDNN_STATUS_SUCCESS) return true;
  last_message();  // of no later failure
  return false;
}

std::size_t Descriptor::read_into(cudnnBackendAttributeName_t name,
                                  cudnnBackendAttributeType_t type, std::int64_t count,
                                  void* values) const {
  std::int64_t found = 0;
  check_cudnn(cudnnBackendGetAttribute(descriptor_, name, type, count, &found, values),
              "say attribute " + std::to_string(name));
  return static_cast<std::size_t>(std::min(found, count));
}

std::int64_t Descriptor::integer(cudnnBackendAttributeName_t name) const {
  return read<std::int64_t>(name, CUDNN_TYPE_INT64, 1).at(0);
}

std::int64_t Descriptor::count(cudnnBackendAttributeName_t name,
                               cudnnBackendAttributeType_t type) const {
  std::int64_t found = 0;
  check_cudnn(cudnnBackendGetAttribute(descriptor_, name, type, 0, &found, nullptr),
              "count attribute " + std::to_string(name));
  return found;
}

std::vector<Descriptor> Descriptor::read_descriptors(cudnnBackendAttributeName_t name,
                                                     cudnnBackendDescriptorType_t type,
                                                     std::int64_t count) const {
  std::vector<Descriptor> descriptors;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < count; ++i) raw.push_back(descriptors.emplace_back(type).get());
  const std::size_t found = read_into(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, raw.data());
  while (descriptors.size() > found) descriptors.pop_back();
  return descriptors;
}

}  // namespace ftrain::cuda
