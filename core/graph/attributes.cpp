#include "ftrain/graph/attributes.h"

#include <charconv>
#include <stdexcept>

namespace ftrain {

Payload::~Payload() = default;

namespace {

template <class T>
const T& get(const Attribute* attribute, std::string_view name) {
  if (attribute == nullptr || !std::holds_alternative<T>(*attribute)) {
    throw std::logic_error("attribute '" + std::string(name) + "' is missing or of another type");
  }
  return std::get<T>(*attribute);
}

std::string number_text(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return {text, end};
}

struct Print {
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(std::int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const { return number_text(value); }
  std::string operator()(const std::string& value) const { return value; }
  std::string operator()(const std::vector<std::int64_t>& values) const {
    std::string text = "[";
    for (const std::int64_t value : values) {
      if (text.size() > 1) text += ", ";
      text += std::to_string(value);
    }
    return text + "]";
  }
  std::string operator()(const std::shared_ptr<const Payload>& payload) const {
    return payload ? payload->text() : "none";
  }
};

}  // namespace

const Attribute* Attributes::find(std::string_view name) const {
  for (const auto& [key, value] : list_) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Attributes::set(std::string name, Attribute value) {
  for (auto& [key, old] : list_) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  list_.emplace_back(std::move(name), std::move(value));
}

bool Attributes::flag(std::string_view name) const {
  return get<bool>(find(name), name);
}
std::int64_t Attributes::integer(std::string_view name) const {
  return get<std::int64_t>(find(name), name);
}
double Attributes::number(std::string_view name) const {
  return get<double>(find(name), name);
}
const std::string& Attributes::text(std::string_view name) const {
  return get<std::string>(find(name), name);
}
const std::vector<std::int64_t>& Attributes::integers(std::string_view name) const {
  return get<std::vector<std::int64_t>>(find(name), name);
}
const std::shared_ptr<const Payload>& Attributes::payload_pointer(std::string_view name) const {
  return get<std::shared_ptr<const Payload>>(find(name), name);
}

std::string Attributes::text() const {
  std::string text;
  for (const auto& [name, value] : list_) {
    if (!text.empty()) text += ' ';
    text += name + "=" + std::visit(Print{}, value);
  }
  return text;
}

}  // namespace ftrain
