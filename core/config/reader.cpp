#include "core/config/reader.h"

#include <algorithm>

#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"

namespace ftrain {
namespace {

// A whole number is accepted where a number is wanted; nothing else converts.
template <class T>
std::optional<T> scalar(const TreeValue& value) {
  if (const T* same = std::get_if<T>(&value.data)) return *same;
  if constexpr (std::is_same_v<T, double>) {
    if (const auto* whole = std::get_if<std::int64_t>(&value.data)) {
      return static_cast<double>(*whole);
    }
  }
  return {};
}

std::string absolute(const std::string& path, const std::filesystem::path& folder) {
  if (path.empty()) return path;  // "" is no path, and no folder either
  return std::filesystem::absolute(folder / path).lexically_normal().string();
}

std::string resolved(const std::string& path, const Place& place) {
  return absolute(path, place.file.parent_path());
}

}  // namespace

void StrictReader::wrong_type(const Key& key, const TreeValue& value, std::size_t item) const {
  throw ConfigError(at(value.place) + key_text(table_, key.name) + " must be " +
                    std::string(type_text(key.type, true)) + ", got " + what_is(value) +
                    (item > 0 ? " as item " + std::to_string(item) : "") + ".");
}

Setting StrictReader::convert(const Key& key, const TreeValue& value) const {
  const auto one = [&]<class T>(T*) -> Setting {
    if (auto result = scalar<T>(value)) return *result;
    wrong_type(key, value);
  };
  const auto list = [&]<class T>(T*) {
    const auto* items = std::get_if<TreeValue::Array>(&value.data);
    if (!items) wrong_type(key, value);
    std::vector<T> result;
    for (const TreeValue& item : *items) {
      const auto converted = scalar<T>(item);
      if (!converted) wrong_type(key, item, result.size() + 1);
      result.push_back(*converted);
    }
    return result;
  };
  switch (key.type) {
    case Type::boolean:
      return one(static_cast<bool*>(nullptr));
    case Type::integer:
      return one(static_cast<std::int64_t*>(nullptr));
    case Type::number:
      return one(static_cast<double*>(nullptr));
    case Type::text:
      return one(static_cast<std::string*>(nullptr));
    case Type::path:
      return resolved(std::get<std::string>(one(static_cast<std::string*>(nullptr))), value.place);
    case Type::integers:
      return list(static_cast<std::int64_t*>(nullptr));
    case Type::numbers:
      return list(static_cast<double*>(nullptr));
    case Type::texts:
      return list(static_cast<std::string*>(nullptr));
    case Type::paths:
    case Type::sources: {
      auto paths = list(static_cast<std::string*>(nullptr));
      const auto& items = std::get<TreeValue::Array>(value.data);
      for (std::size_t i = 0; i < paths.size(); ++i) {
        const bool is_name =
            key.type == Type::sources && std::filesystem::path(paths[i]).extension().empty();
        if (!is_name) paths[i] = resolved(paths[i], items[i].place);
      }
      return paths;
    }
    case Type::either:
      break;
  }
  if (auto whole = scalar<std::int64_t>(value)) return *whole;
  return one(static_cast<std::string*>(nullptr));
}

std::optional<Setting> StrictReader::visit(const Key& key) {
  bound_.push_back(key.name);
  const Table::Node::Entry* entry = node_.find(key.name);
  if (!entry) {
    if (key.required) {
      std::vector<std::string> written = table_.keys();
      std::erase_if(written, [&](const std::string& name) {
        return std::find(bound_.begin(), bound_.end(), name) != bound_.end();
      });
      const auto near = near_names(key.name, written);
      throw ConfigError(at(node_.place) + key_text(table_, key.name) + " is missing: " + key.doc +
                        (near.empty() ? "." : ". Is '" + near[0] + "' a slip for it?"));
    }
    if (key.standard) {
      Setting standard = *key.standard;
      // A default path is the working directory's, as everything that is not written in a file.
      if (key.type == Type::path) standard = absolute(std::get<std::string>(standard), {});
      if (key.type == Type::paths) {
        for (auto& path : std::get<std::vector<std::string>>(standard)) path = absolute(path, {});
      }
      node_.use(key.name, std::move(standard));
    }
    return {};
  }
  Setting setting = convert(key, entry->value);
  if (key.rule && key.rule->check && !key.rule->check(setting)) {
    const std::string* text = std::get_if<std::string>(&setting);
    throw ConfigError(at(entry->value.place) + key_text(table_, key.name) + " must be " +
                      key.rule->text + ", got " + toml_text(setting) + "." +
                      (text ? did_you_mean(*text, key.rule->choices) : ""));
  }
  node_.use(key.name, setting);
  return setting;
}

void StrictReader::expect(bool holds, std::string_view key, std::string_view message) {
  if (holds) return;
  throw ConfigError(at(table_.place(key)) + key_text(table_, key) + ": " + std::string(message));
}

void StrictReader::refuse_unknown(const std::vector<std::string>& others) const {
  std::vector<std::string> known = bound_;
  for (const std::string& other : others) {
    if (std::find(known.begin(), known.end(), other) == known.end()) known.push_back(other);
  }
  for (const auto& entry : node_.entries) {
    if (entry.inherited || std::find(known.begin(), known.end(), entry.key) != known.end()) {
      continue;
    }
    throw ConfigError(
        at(entry.place) + "unknown key '" + entry.key + "' " +
        (table_.name().empty() ? "at the top level of the job" : "in [" + table_.name() + "]") +
        "." + did_you_mean(entry.key, known) + " Known keys: " + join(known) + ".");
  }
}

}  // namespace ftrain
