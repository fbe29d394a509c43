// What a node knows beside its inputs: strides, margins, seeds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ftrain/plugin/api.h"

namespace ftrain {

// An object that a node carries for its kernel: a margin, an optimizer's update. Immutable and
// shared; two payloads are equal when they are the same object.
class FTRAIN_API Payload {
 public:
  virtual ~Payload();
  virtual std::string text() const = 0;  // as plans print it
};

using Attribute = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>,
                               std::shared_ptr<const Payload>>;

// A short list of named attributes, in the order in which they were given.
class FTRAIN_API Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<std::string, Attribute>> list) : list_(list) {}

  bool has(std::string_view name) const { return find(name) != nullptr; }
  void set(std::string name, Attribute value);

  // The attribute of that name and type. std::logic_error when it is missing: an op reads only what
  // its emitter wrote.
  bool flag(std::string_view name) const;
  std::int64_t integer(std::string_view name) const;
  double number(std::string_view name) const;
  const std::string& text(std::string_view name) const;
  const std::vector<std::int64_t>& integers(std::string_view name) const;
  template <class T>
  const T& payload(std::string_view name) const {
    return static_cast<const T&>(*payload_pointer(name));
  }
  const std::shared_ptr<const Payload>& payload_pointer(std::string_view name) const;

  const std::vector<std::pair<std::string, Attribute>>& list() const { return list_; }
  std::string text() const;  // "stride=2 padding=1"
  bool operator==(const Attributes&) const = default;

 private:
  const Attribute* find(std::string_view name) const;
  std::vector<std::pair<std::string, Attribute>> list_;
};

}  // namespace ftrain
