// Settings as TOML text: values in messages, and the resolved job.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/config/tree.h"

namespace ftrain {
namespace {

bool is_table(const TreeValue& value) {
  return std::holds_alternative<std::shared_ptr<Table::Node>>(value.data);
}

std::string toml_number(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  std::string text = number_text(number);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

template <class T, class Text>
std::string list(const std::vector<T>& items, Text text) {
  std::string result = "[";
  for (const T& item : items) result += (result.size() > 1 ? ", " : "") + text(item);
  return result + "]";
}

std::string toml_key(std::string_view key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
  return bare ? std::string(key) : toml_string(key);
}

void write(const Table::Node& node, const std::string& name, std::string& out) {
  std::vector<std::pair<std::string, std::string>> lines;
  const auto written = [&](std::string_view key) {
    return std::any_of(lines.begin(), lines.end(), [&](const auto& l) { return l.first == key; });
  };
  for (const auto& used : node.used) lines.emplace_back(used.key, toml_text(used.value));
  for (const auto& entry : node.entries) {
    // What the new plugin did not take of the old one's keys is gone, once somebody has read.
    if (is_table(entry.value) || written(entry.key) || (entry.inherited && !node.used.empty())) {
      continue;
    }
    lines.emplace_back(entry.key, toml_text(entry.value));
  }
  std::stable_partition(lines.begin(), lines.end(),
                        [](const auto& line) { return line.first == "plugin"; });

  std::vector<std::pair<std::string, const Table::Node*>> tables;
  for (const auto& entry : node.entries) {
    if (is_table(entry.value)) {
      tables.emplace_back(entry.key,
                          std::get<std::shared_ptr<Table::Node>>(entry.value.data).get());
    }
  }
  for (const auto& [key, table] : node.absent) {
    if (!node.find(key)) tables.emplace_back(key, table.get());
  }

  if (!name.empty() && !lines.empty()) out += (out.empty() ? "[" : "\n[") + name + "]\n";
  for (const auto& [key, text] : lines) out += toml_key(key) + " = " + text + "\n";
  for (const auto& [key, table] : tables) {
    write(*table, name.empty() ? toml_key(key) : name + "." + toml_key(key), out);
  }
}

}  // namespace

std::string number_text(double number) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
  return {buffer, end};
}

std::string toml_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += std::string("\\") + c;
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (code < 0x20 || code == 0x7f) {
      const char* digits = "0123456789abcdef";
      result += std::string("\\u00") + digits[code >> 4] + digits[code & 15];
    } else {
      result += c;
    }
  }
  return result + "\"";
}

std::string toml_text(const Setting& setting) {
  struct {
    std::string operator()(bool value) const { return value ? "true" : "false"; }
    std::string operator()(std::int64_t value) const { return std::to_string(value); }
    std::string operator()(double value) const { return toml_number(value); }
    std::string operator()(const std::string& value) const { return toml_string(value); }
    std::string operator()(const std::vector<std::int64_t>& values) const {
      return list(values, [](std::int64_t v) { return std::to_string(v); });
    }
    std::string operator()(const std::vector<double>& values) const {
      return list(values, [](double v) { return toml_number(v); });
    }
    std::string operator()(const std::vector<std::string>& values) const {
      return list(values, [](const std::string& v) { return toml_string(v); });
    }
  } text;
  return std::visit(text, setting);
}

std::string toml_text(const TreeValue& value) {
  if (const auto* date = std::get_if<Date>(&value.data)) return date->text;
  if (const auto* array = std::get_if<TreeValue::Array>(&value.data)) {
    return list(*array, [](const TreeValue& item) { return toml_text(item); });
  }
  if (is_table(value)) {
    const auto& node = *std::get<std::shared_ptr<Table::Node>>(value.data);
    std::string text = "{";
    for (const auto& entry : node.entries) {
      text += (text.size() > 1 ? ", " : "") + toml_key(entry.key) + " = " + toml_text(entry.value);
    }
    return text + "}";
  }
  if (const auto* boolean = std::get_if<bool>(&value.data)) return toml_text(Setting(*boolean));
  if (const auto* whole = std::get_if<std::int64_t>(&value.data)) return toml_text(Setting(*whole));
  if (const auto* number = std::get_if<double>(&value.data)) return toml_text(Setting(*number));
  return toml_string(std::get<std::string>(value.data));
}

std::string what_is(const TreeValue& value) {
  switch (value.data.index()) {
    case 0:
      return "the boolean " + toml_text(value);
    case 1:
      return "the whole number " + toml_text(value);
    case 2:
      return "the number " + toml_text(value);
    case 3:
      return "the string " + toml_text(value);
    case 4:
      return "the date " + toml_text(value);
    case 5:
      return "a list";
    default:
      return "a table";
  }
}

std::string toml_document(const Table::Node& root) {
  std::string out;
  write(root, "", out);
  return out;
}

}  // namespace ftrain
