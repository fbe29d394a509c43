// The job file as a tree of settings that remember where they were written.
//
// Table is a view into a Job's tree and lives no longer than it. Reading is strict: read()
// configures a thing from a table and then refuses every key that the thing did not bind. A Job
// keeps what was read, defaults included, for resolved(): reading is for one thread. Failure:
// ConfigError with the place. TOML++ is seen by parse.cpp alone.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ftrain/config/keys.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// Where a setting was written: "job.toml:12:3", or "--set head.margin".
struct Place {
  std::filesystem::path file;  // empty: the command line
  std::uint32_t line = 0, column = 0;
  std::string set;  // the --set argument's key
  FTRAIN_API std::string text() const;
};

class FTRAIN_API Table {
 public:
  struct Node;

  Table() = default;
  // A table that holds nothing, for things that are configured by their defaults.
  static Table empty(std::string name);

  const std::string& name() const { return name_; }  // "head", "verify.portraits"; "" is the root
  bool has(std::string_view key) const;
  bool is_table(std::string_view key) const;
  // The sub-table, or an empty one of that name when it is absent. ConfigError when it is no table.
  Table table(std::string_view key) const;
  std::vector<std::string> keys() const;
  // Where the key stands; the table's own place when the key is absent or empty.
  Place place(std::string_view key = {}) const;
  // A string key outside any Configurable: `plugin`. ConfigError when absent and no default given.
  std::string text(std::string_view key, std::optional<std::string> standard = {}) const;

  // Configures `thing` from this table, then refuses keys that it did not bind, except those in
  // `others` (sub-tables and `plugin`, which the caller reads itself).
  void read(Configurable& thing, const std::vector<std::string>& others = {}) const;

 private:
  friend class Job;
  Table(std::shared_ptr<const Node> node, std::string name);
  std::shared_ptr<const Node> node_;
  std::string name_;
};

// A job file with its includes and overrides merged.
class FTRAIN_API Job {
 public:
  // Parses `file`, the files of its `include` key before it (relative to it, recursively; later
  // tables win), then applies each "key.path=value" of `sets` (value in TOML syntax; a bare word
  // that is no TOML value is a string). ConfigError on syntax errors, include cycles, bad --set.
  static Job load(const std::filesystem::path& file, const std::vector<std::string>& sets = {});
  // The same from text, for tests: `name` stands in messages, relative paths are relative to '.'.
  static Job parse(std::string_view text, const std::string& name = "job",
                   const std::vector<std::string>& sets = {});

  const Table& root() const { return root_; }
  // The merged tree as TOML: what the run folder's job.toml holds. What has been read stands there
  // as it was taken: defaults that the job leaves out, paths absolute.
  std::string resolved() const;

 private:
  Table root_;
};

}  // namespace ftrain
