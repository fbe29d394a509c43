// The strict reader: hands a table's settings to the keys that a thing binds. Private to
// core/config.
#pragma once

#include <string>
#include <vector>

#include "core/config/tree.h"
#include "ftrain/config/keys.h"

namespace ftrain {

class StrictReader : public Keys {
 public:
  StrictReader(const Table& table, const Table::Node& node) : table_(table), node_(node) {}

  void expect(bool holds, std::string_view key, std::string_view message) override;
  // ConfigError for the first written key that was neither bound nor is one of `others`.
  void refuse_unknown(const std::vector<std::string>& others) const;

 protected:
  std::optional<Setting> visit(const Key& key) override;

 private:
  Setting convert(const Key& key, const TreeValue& value) const;
  [[noreturn]] void wrong_type(const Key& key, const TreeValue& value, std::size_t item = 0) const;

  const Table& table_;
  const Table::Node& node_;
  std::vector<std::string> bound_;
};

}  // namespace ftrain
