// ftrain plugins: what there is to name in a job, and the keys of each table.
#include <algorithm>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/train/settings.h"
#include "core/verify/metrics.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "ftrain/plugin/registry.h"
#include "launch/command_line.h"

namespace ftrain::launch {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

// A table that can be described: a plugin's, or one of the trainer's own.
struct Topic {
  std::string kind, name, doc, library;
  std::vector<KeyDoc> keys;
};

template <class Settings>
Topic own_table(const char* name, const char* doc) {
  Settings settings;
  return {"table", name, doc, "", describe(settings)};
}

// In the order of a job file.
std::vector<Topic> own_tables() {
  return {own_table<JobSettings>("job", "the keys outside any table"),
          own_table<DataSettings>("dataset", "keys beside those of the data set's plugin"),
          own_table<InitSettings>("init", "weights to start from"),
          own_table<VerifySettings>("verify", "verification during training"),
          own_table<CheckpointSettings>("checkpoint", "checkpoints of the run folder"),
          own_table<RunSettings>("run", "length and place of a run"),
          own_table<LaunchSettings>("launch", "the ranks"),
          own_table<ObserverSettings>("observers", "who is told how the run goes"),
          own_table<PluginSettings>("plugins", "where plugins are searched")};
}

Topic topic_of(const Registry::Entry& entry) {
  return {entry.kind, entry.name, entry.doc, entry.library.string(), describe(*entry.create())};
}

std::vector<Topic> find(const Registry& registry, const std::string& name) {
  std::vector<Topic> found;
  std::vector<std::string> known{"job"};
  for (Topic& table : own_tables()) {
    known.push_back(table.name);
    if (table.name == name || name == "job") found.push_back(std::move(table));
  }
  for (const Registry::Entry& entry : registry.entries()) {
    known.push_back(entry.name);
    known.push_back(entry.kind);
    if (entry.name == name || entry.kind == name) found.push_back(topic_of(entry));
  }
  if (found.empty()) {
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    throw PluginError("there is no plugin and no table '" + name + "'." +
                      did_you_mean(name, known) + " `ftrain plugins` lists what there is.");
  }
  return found;
}

// The table of a job in which the topic's keys stand.
std::string table_of(const Topic& topic) {
  if (topic.kind == "table") return topic.name == "job" ? "" : "[" + topic.name + "]";
  if (topic.kind == "verify" || topic.kind == "metric") return "[verify." + topic.name + "]";
  if (topic.kind == "observer") return "[observers." + topic.name + "]";
  if (topic.kind == "communicator") return "[launch] communicator = \"" + topic.name + "\"";
  return "[" + topic.kind + "] plugin = \"" + topic.name + "\"";
}

void print(const Topic& topic) {
  std::cout << topic.kind << " " << topic.name << ": " << topic.doc << "\n";
  if (const std::string table = table_of(topic); !table.empty()) std::cout << table << "\n";
  for (const KeyDoc& key : topic.keys) {
    std::cout << "  " << key.name << ": " << key.type;
    if (!key.rule.empty()) std::cout << ", " << key.rule;
    if (key.required) {
      std::cout << ", required";
    } else {
      std::cout << ", " << (key.standard.empty() ? "absent by default" : "default " + key.standard);
    }
    std::cout << "\n      " << key.doc << "\n";
  }
  if (topic.keys.empty()) std::cout << "  no keys\n";
  if (!topic.library.empty()) std::cout << "from " << topic.library << "\n";
}

Json json_of(const Topic& topic) {
  Json keys = Json::array();
  for (const KeyDoc& key : topic.keys) {
    keys.push_back({{"name", key.name},
                    {"type", key.type},
                    {"default", key.standard.empty() ? Json() : Json(key.standard)},
                    {"rule", key.rule},
                    {"doc", key.doc},
                    {"required", key.required}});
  }
  return {{"kind", topic.kind},
          {"name", topic.name},
          {"doc", topic.doc},
          {"library", topic.library},
          {"keys", std::move(keys)}};
}

void print_list(const Registry& registry, const std::vector<std::string>& refused) {
  std::vector<const Registry::Entry*> entries;
  for (const Registry::Entry& entry : registry.entries()) entries.push_back(&entry);
  std::sort(entries.begin(), entries.end(), [](const auto* a, const auto* b) {
    return std::tie(a->kind, a->name) < std::tie(b->kind, b->name);
  });
  std::string kind;
  const auto row = [](const std::string& name, const std::string& doc) {
    std::cout << "  " << name << std::string(name.size() < 20 ? 20 - name.size() : 1, ' ') << doc
              << "\n";
  };
  for (const Registry::Entry* entry : entries) {
    if (entry->kind != kind) std::cout << (kind.empty() ? "" : "\n") << entry->kind << "\n";
    kind = entry->kind;
    row(entry->name, entry->doc);
  }
  std::cout << "\ntables of the trainer itself\n";
  for (const Topic& table : own_tables()) row(table.name, table.doc);
  if (!refused.empty()) std::cout << "\nrefused libraries\n";
  for (const std::string& reason : refused) std::cout << "  " << reason << "\n";
  std::cout << "\n`ftrain plugins NAME` lists the keys of one, `ftrain plugins job` those of every "
               "table of the trainer.\n";
}

}  // namespace

int plugins_command(const Words& words) {
  CommandLine line("ftrain plugins [NAME] [options]",
                   "Lists the plugins that are there. With the name of a plugin, of a kind or of a "
                   "table of a job: every key with its type, rule, default and meaning.");
  line.argument("NAME", false);
  line.options()("path", po::value<std::vector<std::string>>()->value_name("FOLDER")->composing(),
                 "search this folder first; may be repeated")("json", "print one JSON object");
  if (!line.parse(words)) return 0;
  std::vector<std::filesystem::path> folders;
  if (line.has("path")) {
    for (const std::string& folder : line.value<std::vector<std::string>>("path")) {
      folders.emplace_back(folder);
    }
  }
  Registry registry(folders);
  add_metrics(registry);
  std::vector<std::string> refused;
  registry.load_all(&refused);
  if (line.has("json")) {
    Json json{{"plugins", Json::array()}, {"refused", refused}, {"folders", Json::array()}};
    std::vector<Topic> topics;
    if (line.has("NAME")) {
      topics = find(registry, line.text("NAME"));
    } else {
      for (const Registry::Entry& entry : registry.entries()) topics.push_back(topic_of(entry));
      for (Topic& table : own_tables()) topics.push_back(std::move(table));
    }
    for (const Topic& topic : topics) json["plugins"].push_back(json_of(topic));
    for (const auto& folder : registry.folders()) json["folders"].push_back(folder.string());
    std::cout << json.dump(2) << "\n";
  } else if (line.has("NAME")) {
    bool first = true;
    for (const Topic& topic : find(registry, line.text("NAME"))) {
      if (!first) std::cout << "\n";
      first = false;
      print(topic);
    }
  } else {
    print_list(registry, refused);
  }
  return 0;
}

}  // namespace ftrain::launch
