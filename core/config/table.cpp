#include "ftrain/config/table.h"

#include "core/config/reader.h"
#include "core/config/tree.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"

namespace ftrain {

std::string Place::text() const {
  if (file.empty()) return set.empty() ? "" : "--set " + set;
  if (line == 0) return file.string();
  return file.string() + ":" + std::to_string(line) + ":" + std::to_string(column);
}

std::string at(const Place& place) {
  const std::string text = place.text();
  return text.empty() ? "" : text + ": ";
}

std::string key_text(const Table& table, std::string_view key) {
  return (table.name().empty() ? "" : "[" + table.name() + "] ") + std::string(key);
}

const Table::Node::Entry* Table::Node::find(std::string_view key) const {
  for (const Entry& entry : entries) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

Table::Node::Entry* Table::Node::find(std::string_view key) {
  return const_cast<Entry*>(static_cast<const Node*>(this)->find(key));
}

void Table::Node::use(std::string_view key, Setting value) const {
  for (Used& known : used) {
    if (known.key == key) {
      known.value = std::move(value);
      return;
    }
  }
  used.push_back({std::string(key), std::move(value)});
}

Table::Table(std::shared_ptr<const Node> node, std::string name)
    : node_(std::move(node)), name_(std::move(name)) {}

Table Table::empty(std::string name) {
  return {std::make_shared<Node>(), std::move(name)};
}

bool Table::has(std::string_view key) const {
  return node_ && node_->find(key);
}

bool Table::is_table(std::string_view key) const {
  const Node::Entry* entry = node_ ? node_->find(key) : nullptr;
  return entry && std::holds_alternative<std::shared_ptr<Node>>(entry->value.data);
}

Table Table::table(std::string_view key) const {
  std::string name = (name_.empty() ? "" : name_ + ".") + std::string(key);
  if (!node_) return empty(std::move(name));
  if (const Node::Entry* entry = node_->find(key)) {
    if (const auto* node = std::get_if<std::shared_ptr<Node>>(&entry->value.data)) {
      return {*node, std::move(name)};
    }
    throw ConfigError(at(entry->place) + key_text(*this, key) + " must be a table, got " +
                      what_is(entry->value) + ". Write [" + name + "] with its keys under it.");
  }
  auto& node = node_->absent[std::string(key)];
  if (!node) {
    node = std::make_shared<Node>();
    node->place = node_->place;
  }
  return {node, std::move(name)};
}

std::vector<std::string> Table::keys() const {
  std::vector<std::string> names;
  if (!node_) return names;
  for (const auto& entry : node_->entries) names.push_back(entry.key);
  return names;
}

Place Table::place(std::string_view key) const {
  if (!node_) return {};
  const Node::Entry* entry = node_->find(key);
  return entry ? entry->place : node_->place;
}

std::string Table::text(std::string_view key, std::optional<std::string> standard) const {
  const Node::Entry* entry = node_ ? node_->find(key) : nullptr;
  if (!entry) {
    if (!standard) {
      throw ConfigError(at(place()) + key_text(*this, key) + " is missing." +
                        did_you_mean(key, keys()));
    }
    if (node_) node_->use(key, *standard);
    return *standard;
  }
  const auto* text = std::get_if<std::string>(&entry->value.data);
  if (!text) {
    throw ConfigError(at(entry->value.place) + key_text(*this, key) + " must be a string, got " +
                      what_is(entry->value) + ".");
  }
  node_->use(key, *text);
  return *text;
}

void Table::read(Configurable& thing, const std::vector<std::string>& others) const {
  const Table& table = node_ ? *this : empty(name_);
  StrictReader reader(table, *table.node_);
  thing.configure(reader);
  reader.refuse_unknown(others);
}

}  // namespace ftrain
