// How a configurable thing declares the keys of its table, once, for every purpose.
//
// A Configurable binds each key to one of its own members: name, member, doc line, rule. The same
// walk then reads a job file strictly, lists keys with types and defaults for `ftrain plugins
// NAME`, and writes the resolved job. The member's value at the time of binding is the default.
//
//   void configure(ftrain::Keys& keys) override {
//     keys.bind("depth", depth, "number of layers", ftrain::one_of({18, 34, 50, 100, 200}));
//     keys.bind("fc", tail, "the tail: E has dropout, FC none, GDC a depthwise pool",
//               ftrain::one_of({"E", "FC", "GDC"}));
//   }
//
// Ownership: binding keeps no reference after configure() returns. Failure: ConfigError with
// file:line:column, the rule, what came, the nearest name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ftrain/plugin/api.h"

namespace ftrain {

// A value as a job file can hold it.
using Setting = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>,
                             std::vector<double>, std::vector<std::string>>;

// What a key's value must satisfy beyond its type. `check` returns an empty string when it does.
struct Rule {
  std::string text;  // "at least 1", "one of E, FC, GDC"; empty: any value of the type
  std::function<bool(const Setting&)> check;
  std::vector<std::string> choices = {};  // for near names
};

FTRAIN_API Rule any_value();
FTRAIN_API Rule at_least(double low);
FTRAIN_API Rule above(double low);                 // strictly
FTRAIN_API Rule between(double low, double high);  // inclusive
FTRAIN_API Rule one_of(std::initializer_list<std::int64_t> choices);
FTRAIN_API Rule one_of(std::vector<std::string> choices);

class FTRAIN_API Keys {
 public:
  virtual ~Keys();

  // Plain keys. The member's value is the default. A whole number is accepted where a double is
  // wanted; nothing else converts.
  void bind(std::string_view key, bool& member, std::string_view doc);
  void bind(std::string_view key, std::int64_t& member, std::string_view doc,
            const Rule& rule = any_value());
  void bind(std::string_view key, double& member, std::string_view doc,
            const Rule& rule = any_value());
  void bind(std::string_view key, std::string& member, std::string_view doc,
            const Rule& rule = any_value());
  void bind(std::string_view key, std::vector<std::int64_t>& member, std::string_view doc);
  void bind(std::string_view key, std::vector<double>& member, std::string_view doc);
  void bind(std::string_view key, std::vector<std::string>& member, std::string_view doc);

  // A relative path in a job file is relative to that file; one given with --set to the working
  // directory. The member receives it resolved.
  void bind(std::string_view key, std::filesystem::path& member, std::string_view doc);
  void bind(std::string_view key, std::vector<std::filesystem::path>& member, std::string_view doc);

  // A list of paths or names: an entry without an extension is a name and stays as it is.
  void bind_sources(std::string_view key, std::vector<std::filesystem::path>& member,
                    std::string_view doc);

  // Keys that may be absent: the member stays empty.
  void bind(std::string_view key, std::optional<bool>& member, std::string_view doc);
  void bind(std::string_view key, std::optional<std::int64_t>& member, std::string_view doc,
            const Rule& rule = any_value());
  void bind(std::string_view key, std::optional<double>& member, std::string_view doc,
            const Rule& rule = any_value());
  void bind(std::string_view key, std::optional<std::string>& member, std::string_view doc,
            const Rule& rule = any_value());
  void bind(std::string_view key, std::optional<std::filesystem::path>& member,
            std::string_view doc);

  // A key that must be there: the member has no meaningful default.
  void require(std::string_view key, std::string& member, std::string_view doc);
  void require(std::string_view key, std::filesystem::path& member, std::string_view doc);

  // A key of several shapes, e.g. batch_norm = "rank" | "global" | 8. The member's value is the
  // default; `rule` decides what is accepted.
  void bind_either(std::string_view key, std::variant<std::int64_t, std::string>& member,
                   std::string_view doc, const Rule& rule);

  // A rule between keys, checked after they are bound: throws ConfigError at `key`'s place with
  // `message` when `holds` is false. Describing walks never fail.
  virtual void expect(bool holds, std::string_view key, std::string_view message) = 0;

 protected:
  enum class Type {
    boolean,
    integer,
    number,
    text,
    path,
    integers,
    numbers,
    texts,
    paths,
    sources,
    either
  };
  struct Key {
    std::string name;
    Type type;
    std::string doc;
    const Rule* rule;
    bool required;
    std::optional<Setting> standard;  // the default; empty: absent by default
  };
  // "a number" or, without the article, "number".
  static std::string_view type_text(Type type, bool with_article = false);
  // The value for this key, or nothing: keep the default.
  virtual std::optional<Setting> visit(const Key& key) = 0;
};

class FTRAIN_API Configurable {
 public:
  virtual ~Configurable();
  // Binds every key of this thing's table. Called once, before anything else.
  virtual void configure(Keys& keys);
};

// One key as `ftrain plugins NAME` prints it.
struct KeyDoc {
  std::string name, type, standard, rule, doc;
  bool required = false;
};

// The keys of a thing, in the order in which it binds them.
FTRAIN_API std::vector<KeyDoc> describe(Configurable& thing);

}  // namespace ftrain
