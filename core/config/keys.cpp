#include "ftrain/config/keys.h"

#include <algorithm>
#include <initializer_list>

#include "core/config/tree.h"
#include "ftrain/base/suggest.h"

namespace ftrain {
namespace {

// Whether `holds` for every number of the setting; a text never satisfies a rule on numbers.
bool all_numbers(const Setting& setting, const std::function<bool(double)>& holds) {
  if (const auto* whole = std::get_if<std::int64_t>(&setting)) {
    return holds(static_cast<double>(*whole));
  }
  if (const auto* number = std::get_if<double>(&setting)) return holds(*number);
  if (const auto* wholes = std::get_if<std::vector<std::int64_t>>(&setting)) {
    return std::all_of(wholes->begin(), wholes->end(),
                       [&](std::int64_t v) { return holds(static_cast<double>(v)); });
  }
  if (const auto* numbers = std::get_if<std::vector<double>>(&setting)) {
    return std::all_of(numbers->begin(), numbers->end(), holds);
  }
  return false;
}

template <class Member, class T = Member>
void take(std::optional<Setting> setting, Member& member) {
  if (setting) member = std::get<T>(std::move(*setting));
}

template <class T>
std::optional<Setting> present(const std::optional<T>& member) {
  if (member) return Setting(*member);
  return {};
}

std::vector<std::string> strings(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::string> result;
  for (const auto& path : paths) result.push_back(path.string());
  return result;
}

}  // namespace

Rule any_value() {
  return {};
}

Rule at_least(double low) {
  return {"at least " + number_text(low), [low](const Setting& setting) {
            return all_numbers(setting, [low](double v) { return v >= low; });
          }};
}

Rule above(double low) {
  return {"above " + number_text(low), [low](const Setting& setting) {
            return all_numbers(setting, [low](double v) { return v > low; });
          }};
}

Rule between(double low, double high) {
  return {"between " + number_text(low) + " and " + number_text(high),
          [low, high](const Setting& setting) {
            return all_numbers(setting, [=](double v) { return v >= low && v <= high; });
          }};
}

Rule one_of(std::initializer_list<std::int64_t> choices) {
  std::vector<std::string> words;
  for (std::int64_t choice : choices) words.push_back(std::to_string(choice));
  return {"one of " + join(words, ", "),
          [allowed = std::vector<std::int64_t>(choices)](const Setting& setting) {
            const auto* value = std::get_if<std::int64_t>(&setting);
            return value && std::find(allowed.begin(), allowed.end(), *value) != allowed.end();
          }};
}

Rule one_of(std::vector<std::string> choices) {
  return {"one of " + join(choices, ", "),
          [choices](const Setting& setting) {
            const auto* value = std::get_if<std::string>(&setting);
            return value && std::find(choices.begin(), choices.end(), *value) != choices.end();
          },
          choices};
}

Keys::~Keys() = default;
Configurable::~Configurable() = default;
void Configurable::configure(Keys&) {}

void Keys::bind(std::string_view key, bool& member, std::string_view doc) {
  take(visit({std::string(key), Type::boolean, std::string(doc), nullptr, false, member}), member);
}

void Keys::bind(std::string_view key, std::int64_t& member, std::string_view doc,
                const Rule& rule) {
  take(visit({std::string(key), Type::integer, std::string(doc), &rule, false, member}), member);
}

void Keys::bind(std::string_view key, double& member, std::string_view doc, const Rule& rule) {
  take(visit({std::string(key), Type::number, std::string(doc), &rule, false, member}), member);
}

void Keys::bind(std::string_view key, std::string& member, std::string_view doc, const Rule& rule) {
  take(visit({std::string(key), Type::text, std::string(doc), &rule, false, member}), member);
}

void Keys::bind(std::string_view key, std::vector<std::int64_t>& member, std::string_view doc) {
  take(visit({std::string(key), Type::integers, std::string(doc), nullptr, false, member}), member);
}

void Keys::bind(std::string_view key, std::vector<double>& member, std::string_view doc) {
  take(visit({std::string(key), Type::numbers, std::string(doc), nullptr, false, member}), member);
}

void Keys::bind(std::string_view key, std::vector<std::string>& member, std::string_view doc) {
  take(visit({std::string(key), Type::texts, std::string(doc), nullptr, false, member}), member);
}

void Keys::bind(std::string_view key, std::filesystem::path& member, std::string_view doc) {
  take<std::filesystem::path, std::string>(
      visit({std::string(key), Type::path, std::string(doc), nullptr, false, member.string()}),
      member);
}

void Keys::bind(std::string_view key, std::vector<std::filesystem::path>& member,
                std::string_view doc) {
  auto setting =
      visit({std::string(key), Type::paths, std::string(doc), nullptr, false, strings(member)});
  if (!setting) return;
  const auto& paths = std::get<std::vector<std::string>>(*setting);
  member.assign(paths.begin(), paths.end());
}

void Keys::bind_sources(std::string_view key, std::vector<std::filesystem::path>& member,
                        std::string_view doc) {
  auto setting =
      visit({std::string(key), Type::sources, std::string(doc), nullptr, false, strings(member)});
  if (!setting) return;
  const auto& paths = std::get<std::vector<std::string>>(*setting);
  member.assign(paths.begin(), paths.end());
}

void Keys::bind(std::string_view key, std::optional<bool>& member, std::string_view doc) {
  take<std::optional<bool>, bool>(
      visit({std::string(key), Type::boolean, std::string(doc), nullptr, false, present(member)}),
      member);
}

void Keys::bind(std::string_view key, std::optional<std::int64_t>& member, std::string_view doc,
                const Rule& rule) {
  take<std::optional<std::int64_t>, std::int64_t>(
      visit({std::string(key), Type::integer, std::string(doc), &rule, false, present(member)}),
      member);
}

void Keys::bind(std::string_view key, std::optional<double>& member, std::string_view doc,
                const Rule& rule) {
  take<std::optional<double>, double>(
      visit({std::string(key), Type::number, std::string(doc), &rule, false, present(member)}),
      member);
}

void Keys::bind(std::string_view key, std::optional<std::string>& member, std::string_view doc,
                const Rule& rule) {
  take<std::optional<std::string>, std::string>(
      visit({std::string(key), Type::text, std::string(doc), &rule, false, present(member)}),
      member);
}

void Keys::bind(std::string_view key, std::optional<std::filesystem::path>& member,
                std::string_view doc) {
  std::optional<Setting> standard;
  if (member) standard = member->string();
  take<std::optional<std::filesystem::path>, std::string>(
      visit({std::string(key), Type::path, std::string(doc), nullptr, false, standard}), member);
}

void Keys::require(std::string_view key, std::string& member, std::string_view doc) {
  take(visit({std::string(key), Type::text, std::string(doc), nullptr, true, {}}), member);
}

void Keys::require(std::string_view key, std::filesystem::path& member, std::string_view doc) {
  take<std::filesystem::path, std::string>(
      visit({std::string(key), Type::path, std::string(doc), nullptr, true, {}}), member);
}

void Keys::bind_either(std::string_view key, std::variant<std::int64_t, std::string>& member,
                       std::string_view doc, const Rule& rule) {
  const Setting standard = std::visit([](const auto& value) { return Setting(value); }, member);
  auto setting = visit({std::string(key), Type::either, std::string(doc), &rule, false, standard});
  if (!setting) return;
  if (const auto* whole = std::get_if<std::int64_t>(&*setting)) {
    member = *whole;
  } else {
    member = std::get<std::string>(std::move(*setting));
  }
}

namespace {

// Lists the keys; every member keeps its default.
class Describer : public Keys {
 public:
  void expect(bool, std::string_view, std::string_view) override {}
  std::vector<KeyDoc> docs;

 protected:
  std::optional<Setting> visit(const Key& key) override {
    docs.push_back({key.name, std::string(type_text(key.type)),
                    key.standard ? toml_text(*key.standard) : "", key.rule ? key.rule->text : "",
                    key.doc, key.required});
    return {};
  }
};

}  // namespace

std::string_view Keys::type_text(Type type, bool with_article) {
  const std::string_view text = [&]() -> std::string_view {
    switch (type) {
      case Type::boolean:
        return "a boolean";
      case Type::integer:
        return "a whole number";
      case Type::number:
        return "a number";
      case Type::text:
        return "a string";
      case Type::path:
        return "a path";
      case Type::integers:
        return "a list of whole numbers";
      case Type::numbers:
        return "a list of numbers";
      case Type::texts:
        return "a list of strings";
      case Type::paths:
        return "a list of paths";
      case Type::sources:
        return "a list of paths or names";
      case Type::either:
        return "a whole number or string";
    }
    return "a value";
  }();
  return with_article ? text : text.substr(2);
}

std::vector<KeyDoc> describe(Configurable& thing) {
  Describer describer;
  thing.configure(describer);
  return std::move(describer.docs);
}

}  // namespace ftrain
