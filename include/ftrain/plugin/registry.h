// Plugins by kind and name.
//
// A plugin's setup function is handed a Registry and adds what it offers; nothing registers itself
// at load time. create() loads the shared library NAME.so when no plugin of that name is there yet.
// A library may also bring kernels for devices of others, and nothing else: load(). Ownership:
// created things belong to the caller; the registry lives as long as the process's last plugin
// object. Threads: not for concurrent use while libraries are loaded. Failure: PluginError.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/abi.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

struct KernelDef;  // ftrain/device/kernel.h

// An interface that plugins implement names its kind: `static constexpr const char* kind =
// "backbone";` which is also the table of the job that names the plugin.
template <class T>
concept PluginInterface = std::derived_from<T, Configurable> && requires {
  { T::kind } -> std::convertible_to<const char*>;
};

class FTRAIN_API Registry {
 public:
  struct Entry {
    std::string kind, name, doc;
    std::filesystem::path library;  // empty: built into the process (tests)
    std::function<std::unique_ptr<Configurable>()> create;
  };
  // A kernel for a device that knows nothing of it.
  struct KernelEntry {
    std::string device;             // the plugin's name: "cpu", "cuda"
    std::filesystem::path library;  // empty: built into the process (tests)
    std::shared_ptr<const KernelDef> def;
  };

  // Plugin libraries are searched in these folders, in order, then in $FTRAIN_PLUGIN_PATH
  // (colon-separated), then in the installation's own folder.
  explicit Registry(std::vector<std::filesystem::path> folders = {});
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // What a plugin's setup calls. `doc` is one line. A second plugin of one kind and name is a
  // PluginError that names both libraries; so is a kind whose headers were others when the plugin
  // was built.
  template <PluginInterface Interface, std::derived_from<Interface> T>
  void add(std::string name, std::string doc) {
    add_entry({Interface::kind,
               std::move(name),
               std::move(doc),
               {},
               [] { return std::unique_ptr<Configurable>(static_cast<Configurable*>(new T())); }},
              kind_hash(Interface::kind));
  }

  // A kernel for every device of that name, beside the device's own: the highest priority that
  // does not refuse wins. What `def` points to must live as long as the library. A second kernel of
  // one device, op and name is a PluginError that names both libraries.
  void add_kernel(std::string device, const KernelDef& def) {
    add_kernel_entry(std::move(device), def, kind_hash("kernel"));
  }

  // A new T of that name, configured from `table` (whose key `plugin` and the keys in `others` are
  // left to the caller). Loads NAME.so first if need be. PluginError with the searched folders and
  // near names when there is none.
  template <PluginInterface Interface>
  std::unique_ptr<Interface> create(const std::string& name, const Table& table,
                                    std::vector<std::string> others = {}) {
    return std::unique_ptr<Interface>(static_cast<Interface*>(
        create_entry(Interface::kind, name, table, std::move(others)).release()));
  }
  // The plugin that `[kind] plugin = "..."` of the job names.
  template <PluginInterface Interface>
  std::unique_ptr<Interface> create(const Job& job, std::vector<std::string> others = {}) {
    const Table table = job.root().table(Interface::kind);
    return create<Interface>(table.text("plugin"), table, std::move(others));
  }

  // Loads the library NAME.so, for what no table of a job names. PluginError with the searched
  // folders and near names when there is none.
  void load(const std::string& name);

  // Loads every library of the searched folders: for `ftrain plugins`. Libraries that refuse are
  // reported in `refused` as "file: reason".
  void load_all(std::vector<std::string>* refused = nullptr);
  const std::vector<Entry>& entries() const;
  const std::vector<KernelEntry>& kernels() const;
  const std::vector<std::filesystem::path>& folders() const;
  // The libraries that were loaded so far, by path.
  std::vector<std::filesystem::path> libraries() const;

 private:
  // `hash`: kind_hash() as the caller's translation unit has it.
  void add_entry(Entry entry, std::string_view hash);
  void add_kernel_entry(std::string device, const KernelDef& def, std::string_view hash);
  std::unique_ptr<Configurable> create_entry(const std::string& kind, const std::string& name,
                                             const Table& table, std::vector<std::string> others);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ftrain
