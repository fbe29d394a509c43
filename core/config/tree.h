// The tree behind Table and Job: settings in the order in which they were written, each with its
// place, and what reading made of them. Private to core/config.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ftrain/config/table.h"

namespace ftrain {

// A date or time, which no key takes: kept as it was written, for messages.
struct Date {
  std::string text;
};

struct TreeValue {
  using Array = std::vector<TreeValue>;
  Place place;
  std::variant<bool, std::int64_t, double, std::string, Date, Array, std::shared_ptr<Table::Node>>
      data;
};

struct Table::Node {
  struct Entry {
    std::string key;
    Place place;
    TreeValue value;
    // Written for the plugin that a later layer replaced by another: refused by nobody.
    bool inherited = false;
  };
  struct Used {
    std::string key;
    Setting value;
  };

  Place place;
  std::vector<Entry> entries;

  // What readers took, defaults included and paths resolved, in the order of binding; and the
  // tables that were asked for without being written. Reading a job is for one thread.
  mutable std::vector<Used> used;
  mutable std::map<std::string, std::shared_ptr<Node>, std::less<>> absent;

  const Entry* find(std::string_view key) const;
  Entry* find(std::string_view key);
  void use(std::string_view key, Setting value) const;
};

// Text for messages and for the resolved job.
std::string toml_text(const Setting& setting);
std::string toml_text(const TreeValue& value);
std::string toml_string(std::string_view text);
std::string number_text(double number);
std::string what_is(const TreeValue& value);  // "the string \"half\"", "a list", ...

// "[head] margin", or "seed" at the top level.
std::string key_text(const Table& table, std::string_view key);
// "job.toml:3:9: " or nothing when the place is unknown.
std::string at(const Place& place);

// The tree as a TOML document.
std::string toml_document(const Table::Node& root);

}  // namespace ftrain
