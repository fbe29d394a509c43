#include "ftrain/plugin/registry.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "core/plugin/loader.h"
#include "ftrain/base/suggest.h"
#include "ftrain/device/kernel.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;

// "head 'arcface' and backbone 'tiny'".
std::string list(const std::vector<Registry::Entry>& entries) {
  std::vector<std::string> words;
  for (const auto& entry : entries) words.push_back(entry.kind + " '" + entry.name + "'");
  return join(words, " and ", "nothing");
}

std::vector<fs::path> libraries_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder, ignored)) {
    if (file.path().extension() == ".so") files.push_back(file.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

template <class Entry>
std::string origin(const Entry& entry) {
  return entry.library.empty() ? "this program" : entry.library.string();
}

// Whether a plugin was built with the headers of its kind that this ftrain has.
void check_headers(const std::string& kind, const std::string& title, const std::string& from,
                   std::string_view hash) {
  const std::string_view own = kind_hash(kind.c_str());
  if (own == hash) return;
  throw PluginError(from + ": its " + title + " was built with other headers of ftrain/" + kind +
                    ".h.\n  the plugin: " + kind + " headers " + std::string(hash) +
                    "\n  this ftrain: " + kind + " headers " + std::string(own) +
                    "\nRebuild the plugin against this ftrain.");
}

// A file's name and no path.
bool is_sound(const std::string& name) {
  return !name.empty() && name.find_first_of("/\\") == std::string::npos;
}

}  // namespace

struct Registry::State {
  std::vector<fs::path> folders;
  std::vector<Entry> entries;
  std::vector<KernelEntry> kernels;
  std::set<fs::path> loaded;
  fs::path loading;  // while a setup function runs

  void load(const fs::path& file, Registry& registry) {
    if (loaded.contains(file)) return;
    const FtrainPlugin& plugin = load_plugin(file);
    const std::size_t before = entries.size(), kernels_before = kernels.size();
    loading = file;
    try {
      plugin.setup(&registry);
    } catch (const std::exception& error) {
      entries.resize(before);  // all of a library or nothing
      kernels.resize(kernels_before);
      loading.clear();
      if (dynamic_cast<const Error*>(&error)) throw;
      throw PluginError(file.string() + ": its setup failed: " + error.what());
    }
    loading.clear();
    loaded.insert(file);
  }

  fs::path library(const std::string& name) const {
    for (const fs::path& folder : folders) {
      std::error_code ignored;
      if (fs::is_regular_file(folder / (name + ".so"), ignored)) return folder / (name + ".so");
    }
    return {};
  }

  const Entry* find(const std::string& kind, const std::string& name) const {
    for (const Entry& entry : entries) {
      if (entry.kind == kind && entry.name == name) return &entry;
    }
    return nullptr;
  }

  std::string not_found(const std::string& kind, const std::string& name) const {
    std::vector<std::string> known, searched;
    for (const Entry& entry : entries) {
      if (entry.kind == kind) known.push_back(entry.name);
    }
    for (const fs::path& folder : folders) {
      searched.push_back(folder.string());
      for (const fs::path& file : libraries_in(folder)) known.push_back(file.stem().string());
    }
    const std::string what = kind == "library" ? "plugin library" : kind + " plugin";
    return "there is no " + what + " '" + name + "'." + did_you_mean(name, known) + " " + name +
           ".so was searched in " + join(searched) + "; `ftrain plugins` lists what there is.";
  }
};

Registry::Registry(std::vector<fs::path> folders) : state_(std::make_unique<State>()) {
  if (const char* variable = std::getenv("FTRAIN_PLUGIN_PATH")) {
    std::string_view rest = variable;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find(':'), rest.size());
      if (end > 0) folders.emplace_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  folders.push_back(installed_plugins());
  for (const fs::path& folder : folders) {
    std::error_code ignored;
    fs::path clean = fs::weakly_canonical(fs::absolute(folder), ignored);
    auto& known = state_->folders;
    if (std::find(known.begin(), known.end(), clean) == known.end()) {
      known.push_back(std::move(clean));
    }
  }
}

Registry::~Registry() = default;

void Registry::add_entry(Entry entry, std::string_view hash) {
  entry.library = state_->loading;
  check_headers(entry.kind, entry.kind + " '" + entry.name + "'", origin(entry), hash);
  if (const Entry* other = state_->find(entry.kind, entry.name)) {
    throw PluginError("two plugins are called " + entry.kind + " '" + entry.name + "': one from " +
                      origin(*other) + ", one from " + origin(entry) + ". Remove or rename one.");
  }
  state_->entries.push_back(std::move(entry));
}

void Registry::add_kernel_entry(std::string device, const KernelDef& def, std::string_view hash) {
  KernelEntry entry{std::move(device), state_->loading, nullptr};
  check_headers("kernel", "kernel for the device '" + entry.device + "'", origin(entry), hash);
  entry.def = std::make_shared<const KernelDef>(def);
  const std::string title =
      "kernel '" + std::string(def.name) + "' of op '" + std::string(def.op) + "'";
  if (def.op.empty() || def.name.empty() || def.make == nullptr) {
    throw PluginError(origin(entry) + ": a kernel for the device '" + entry.device +
                      "' lacks its op, its name or its make function");
  }
  for (const KernelEntry& other : state_->kernels) {
    if (other.device != entry.device || other.def->op != def.op || other.def->name != def.name) {
      continue;
    }
    throw PluginError("two are called " + title + " for the device '" + entry.device +
                      "': one from " + origin(other) + ", one from " + origin(entry) +
                      ". Remove or rename one.");
  }
  state_->kernels.push_back(std::move(entry));
}

void Registry::load(const std::string& name) {
  const fs::path file = is_sound(name) ? state_->library(name) : fs::path();
  if (file.empty()) throw PluginError(state_->not_found("library", name));
  state_->load(file, *this);
}

std::unique_ptr<Configurable> Registry::create_entry(const std::string& kind,
                                                     const std::string& name, const Table& table,
                                                     std::vector<std::string> others) {
  const Entry* entry = state_->find(kind, name);
  if (!entry) {
    std::string where = table.place("plugin").text();
    if (!where.empty()) where += ": ";
    const fs::path file = is_sound(name) ? state_->library(name) : fs::path();
    if (file.empty()) throw PluginError(where + state_->not_found(kind, name));
    try {
      state_->load(file, *this);
    } catch (const PluginError& error) {
      throw PluginError(where + error.what());
    }
    entry = state_->find(kind, name);
    if (!entry) {
      std::vector<Entry> offered;
      std::copy_if(state_->entries.begin(), state_->entries.end(), std::back_inserter(offered),
                   [&](const Entry& e) { return e.library == file; });
      throw PluginError(where + file.string() + " offers no " + kind + " '" + name +
                        "'; it offers " + list(offered) + ".");
    }
  }
  std::unique_ptr<Configurable> thing = entry->create();
  others.emplace_back("plugin");
  table.read(*thing, others);
  return thing;
}

void Registry::load_all(std::vector<std::string>* refused) {
  std::set<std::string> names;  // the first folder that has a name wins, as when it is asked for
  for (const fs::path& folder : state_->folders) {
    for (const fs::path& file : libraries_in(folder)) {
      if (!names.insert(file.stem().string()).second) continue;
      try {
        state_->load(file, *this);
      } catch (const Error& error) {
        const std::string text = error.what();
        const bool says_where = text.starts_with(file.string());
        if (refused) refused->push_back(says_where ? text : file.string() + ": " + text);
      }
    }
  }
}

const std::vector<Registry::Entry>& Registry::entries() const {
  return state_->entries;
}

const std::vector<Registry::KernelEntry>& Registry::kernels() const {
  return state_->kernels;
}

const std::vector<fs::path>& Registry::folders() const {
  return state_->folders;
}

std::vector<fs::path> Registry::libraries() const {
  return {state_->loaded.begin(), state_->loaded.end()};
}

}  // namespace ftrain
