// Layers to one tree: includes below, the file above them, the command line on top.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "core/config/parse.h"
#include "core/config/tree.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "ftrain/config/table.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;
using Node = Table::Node;

Node* as_table(TreeValue& value) {
  const auto* node = std::get_if<std::shared_ptr<Node>>(&value.data);
  return node ? node->get() : nullptr;
}

void mark_inherited(Node& node) {
  for (auto& entry : node.entries) {
    if (entry.key == "plugin") continue;
    entry.inherited = true;
    if (Node* inner = as_table(entry.value)) mark_inherited(*inner);
  }
}

const std::string* plugin_of(const Node& node) {
  const auto* entry = node.find("plugin");
  return entry ? std::get_if<std::string>(&entry->value.data) : nullptr;
}

// Tables merge, anything else is replaced. A layer that names another plugin makes the keys that
// lower layers wrote for the former one candidates: bound where the new plugin knows them, never
// refused.
void merge(Node& into, Node& from) {
  const std::string* before = plugin_of(into);
  const std::string* after = plugin_of(from);
  if (before && after && *before != *after) mark_inherited(into);
  if (from.place.set.empty()) into.place = from.place;
  for (auto& entry : from.entries) {
    auto* existing = into.find(entry.key);
    if (!existing) {
      into.entries.push_back(std::move(entry));
      continue;
    }
    Node* lower = as_table(existing->value);
    Node* upper = as_table(entry.value);
    if (lower && upper) {
      existing->inherited = false;
      if (entry.place.set.empty()) existing->place = entry.place;
      merge(*lower, *upper);
    } else {
      *existing = std::move(entry);
    }
  }
}

std::string read_file(const fs::path& file, const Place& from) {
  std::ifstream in(file, std::ios::binary);
  if (!in || fs::is_directory(file)) {
    std::vector<std::string> near;
    std::error_code ignored;
    for (const auto& other :
         fs::directory_iterator(file.parent_path().empty() ? "." : file.parent_path(), ignored)) {
      if (other.path().extension() == ".toml") near.push_back(other.path().filename().string());
    }
    const std::string why = fs::is_directory(file) ? "it is a folder" : std::strerror(errno);
    throw ConfigError(at(from) + "the job file '" + file.string() + "' cannot be read: " + why +
                      "." + did_you_mean(file.filename().string(), near));
  }
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::pair<fs::path, Place>> take_includes(Node& node) {
  std::vector<std::pair<fs::path, Place>> files;
  const auto* entry = node.find("include");
  if (!entry) return files;
  const auto add = [&](const TreeValue& value) {
    const auto* text = std::get_if<std::string>(&value.data);
    if (!text) {
      throw ConfigError(at(value.place) +
                        "include must be a file name or a list of file names, got " +
                        what_is(value) + ".");
    }
    files.emplace_back((value.place.file.parent_path() / *text).lexically_normal(), value.place);
  };
  if (const auto* items = std::get_if<TreeValue::Array>(&entry->value.data)) {
    for (const TreeValue& item : *items) add(item);
  } else {
    add(entry->value);
  }
  std::erase_if(node.entries, [](const auto& e) { return e.key == "include"; });
  return files;
}

// `chain` holds the files that led here.
void add_layers(Node& into, Node& layer, std::vector<fs::path>& chain) {
  for (const auto& [file, from] : take_includes(layer)) {
    chain.push_back(file);
    const fs::path self = fs::weakly_canonical(file);
    const auto first = std::find_if(chain.begin(), chain.end() - 1, [&](const fs::path& other) {
      return fs::weakly_canonical(other) == self;
    });
    if (first != chain.end() - 1) {
      std::string text;
      for (auto link = first; link != chain.end(); ++link) {
        text += (text.empty() ? "" : " -> ") + link->string();
      }
      throw ConfigError(at(from) + "include runs in a circle: " + text + ".");
    }
    const auto included = parse_toml(read_file(file, from), file);
    add_layers(into, *included, chain);
    chain.pop_back();
  }
  merge(into, layer);
}

// One "key.path=value" into the tree of the command line's layer.
void add_set(Node& root, const std::string& argument) {
  const std::size_t equals = argument.find('=');
  const std::string path = argument.substr(0, equals);
  const Place place{{}, 0, 0, path};
  if (equals == std::string::npos || equals + 1 == argument.size()) {
    throw ConfigError(
        "--set " + argument +
        ": wanted is key=value, as in --set head.margin=0.4 (an empty string is \"\").");
  }
  std::vector<std::string> words;
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t dot = std::min(path.find('.', start), path.size());
    words.push_back(path.substr(start, dot - start));
    start = dot + 1;
  }
  for (const std::string& word : words) {
    if (word.empty() || word.find_first_of(" \t\"'[]") != std::string::npos) {
      throw ConfigError("--set " + argument + ": '" + path +
                        "' is no key; keys are words with dots between, as in head.margin.");
    }
  }
  if (words.front() == "include") {
    throw ConfigError(
        "--set " + argument +
        ": include can only stand in a job file. Write a job file that includes both.");
  }
  Node* node = &root;
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    auto* entry = node->find(words[i]);
    if (!entry) {
      auto inner = std::make_shared<Node>();
      inner->place = place;
      node->entries.push_back({words[i], place, {place, std::move(inner)}});
      entry = &node->entries.back();
    }
    node = as_table(entry->value);
    if (!node) {
      throw ConfigError("--set " + argument + ": " + words[i] + " is given as " +
                        what_is(entry->value) + " by another --set.");
    }
  }
  TreeValue value = parse_set_value(std::string_view(argument).substr(equals + 1), place);
  if (auto* entry = node->find(words.back())) {
    entry->value = std::move(value);
  } else {
    node->entries.push_back({words.back(), place, std::move(value)});
  }
}

std::shared_ptr<Node> assemble(std::string_view text, const fs::path& file,
                               const std::vector<std::string>& sets) {
  auto root = std::make_shared<Node>();
  const auto own = parse_toml(text, file);
  std::vector<fs::path> chain{file};
  add_layers(*root, *own, chain);
  Node overrides;
  overrides.place.set = "top level";
  for (const std::string& argument : sets) add_set(overrides, argument);
  merge(*root, overrides);
  return root;
}

}  // namespace

Job Job::load(const fs::path& file, const std::vector<std::string>& sets) {
  Job job;
  job.root_ = Table(assemble(read_file(file, {}), file, sets), "");
  return job;
}

Job Job::parse(std::string_view text, const std::string& name,
               const std::vector<std::string>& sets) {
  Job job;
  job.root_ = Table(assemble(text, name, sets), "");
  return job;
}

std::string Job::resolved() const {
  return root_.node_ ? toml_document(*root_.node_) : "";
}

}  // namespace ftrain
