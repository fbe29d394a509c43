#include "core/config/parse.h"

#include <toml++/toml.h>

#include <algorithm>
#include <sstream>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

// `fixed` is the place of everything in a --set argument; otherwise places come from the source.
struct Builder {
  std::filesystem::path file;
  const Place* fixed = nullptr;

  Place place(const toml::source_region& source) const {
    if (fixed) return *fixed;
    return {file, source.begin.line, source.begin.column, {}};
  }

  std::shared_ptr<Table::Node> table(const toml::table& from) const {
    auto node = std::make_shared<Table::Node>();
    node->place = place(from.source());
    for (const auto& [key, value] : from) {
      node->entries.push_back({std::string(key.str()), place(key.source()), this->value(value)});
    }
    // TOML++ sorts by name; the order of writing reads better in a resolved job.
    std::stable_sort(node->entries.begin(), node->entries.end(), [](const auto& a, const auto& b) {
      return std::pair(a.place.line, a.place.column) < std::pair(b.place.line, b.place.column);
    });
    return node;
  }

  TreeValue value(const toml::node& from) const {
    TreeValue result{place(from.source()), false};
    if (const auto* boolean = from.as_boolean()) {
      result.data = boolean->get();
    } else if (const auto* integer = from.as_integer()) {
      result.data = integer->get();
    } else if (const auto* number = from.as_floating_point()) {
      result.data = number->get();
    } else if (const auto* text = from.as_string()) {
      result.data = text->get();
    } else if (const auto* array = from.as_array()) {
      TreeValue::Array items;
      for (const toml::node& item : *array) items.push_back(value(item));
      result.data = std::move(items);
    } else if (const auto* inner = from.as_table()) {
      result.data = table(*inner);
    } else {
      std::ostringstream text;
      if (const auto* date = from.as_date()) text << date->get();
      if (const auto* time = from.as_time()) text << time->get();
      if (const auto* both = from.as_date_time()) text << both->get();
      result.data = Date{text.str()};
    }
    return result;
  }
};

}  // namespace

std::shared_ptr<Table::Node> parse_toml(std::string_view text, const std::filesystem::path& file) {
  try {
    const toml::table parsed = toml::parse(text, file.string());
    auto node = Builder{file}.table(parsed);
    node->place = {file, 0, 0, {}};
    return node;
  } catch (const toml::parse_error& error) {
    const Place place{file, error.source().begin.line, error.source().begin.column, {}};
    throw ConfigError(at(place) + "no valid TOML: " + std::string(error.description()));
  }
}

TreeValue parse_set_value(std::string_view text, const Place& place) {
  const bool bare = text.find_first_of("\"'[{") != 0;
  try {
    const toml::table parsed = toml::parse("value = " + std::string(text) + "\n");
    const toml::node* node = parsed.get("value");
    // Several lines, or a date: only a quoted word could have meant it as TOML.
    if (parsed.size() == 1 &&
        !(bare && (node->is_date() || node->is_time() || node->is_date_time()))) {
      return Builder{{}, &place}.value(*node);
    }
  } catch (const toml::parse_error& error) {
    if (!bare) {
      throw ConfigError(at(place) + "'" + std::string(text) +
                        "' is no valid TOML value: " + std::string(error.description()));
    }
  }
  return {place, std::string(text)};
}

}  // namespace ftrain
