// Descriptors of cuDNN's backend API, owned. Failure: DeviceError with cuDNN's own text.
#pragma once

#include <cudnn_graph.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ftrain::cuda {

// "9.19.0"
std::string cudnn_version();

// DeviceError "cuDNN cannot WHAT: CUDNN_STATUS_...: its last message" unless it is a success.
void check_cudnn(cudnnStatus_t status, std::string_view what);

class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;

  cudnnBackendDescriptor_t get() const { return descriptor_; }

  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
           const void* values);
  void set(cudnnBackendAttributeName_t name, std::int64_t value);
  void set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values);
  void set(cudnnBackendAttributeName_t name, cudnnDataType_t value);
  void set(cudnnBackendAttributeName_t name, const Descriptor& value);
  void set(cudnnBackendAttributeName_t name, std::span<const Descriptor> values);

  void finalize(std::string_view what);
  // Whether it could be; not an error where cuDNN does not support what is described.
  bool try_finalize();

  // Up to `count` values of an attribute; fewer where it has fewer.
  template <class T>
  std::vector<T> read(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                      std::int64_t count) const {
    std::vector<T> values(static_cast<std::size_t>(count));
    values.resize(read_into(name, type, count, values.data()));
    return values;
  }
  std::int64_t integer(cudnnBackendAttributeName_t name) const;
  // How many values an attribute has.
  std::int64_t count(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) const;
  // Descriptors that an attribute holds: filled into new ones of `type`.
  std::vector<Descriptor> read_descriptors(cudnnBackendAttributeName_t name,
                                           cudnnBackendDescriptorType_t type,
                                           std::int64_t count) const;

 private:
  std::size_t read_into(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                        std::int64_t count, void* values) const;

  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

}  // namespace ftrain::cuda
