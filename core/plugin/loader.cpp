#include "core/plugin/loader.h"

#include <dlfcn.h>

#include <boost/dll/shared_library.hpp>
#include <string>
#include <system_error>

#include "ftrain/base/error.h"
#include "ftrain_internal_hash.h"  // generated: FTRAIN_INTERNAL_HASH

namespace ftrain {
namespace {

namespace dll = boost::dll;

// Plugins are kept by this flag rather than by handles: objects, functions and exception types of
// theirs may live until the process ends.
constexpr auto keep = static_cast<dll::load_mode::type>(RTLD_NODELETE);

// The system's own words out of Boost's exception, without the file's name, which we say ourselves:
// "invalid ELF header".
std::string reason(const std::system_error& error, const std::string& file) {
  std::string text = error.what();
  const std::string_view before = "dlerror system message: ";
  const std::size_t start = text.find(before);
  if (start == std::string::npos) return text;
  text = text.substr(start + before.size());
  text = text.substr(0, text.rfind(')'));
  if (text.starts_with(file + ": ")) text.erase(0, file.size() + 2);
  return text;
}

// The library's descriptor, checked without running any of its functions.
const FtrainPlugin& descriptor(const dll::shared_library& library, const std::string& file) {
  if (!library.has(FTRAIN_PLUGIN_SYMBOL_NAME)) {
    for (int abi = 0; abi < 100; ++abi) {
      const std::string other = std::to_string(abi);
      if (!library.has(("ftrain_plugin_v" + other).c_str())) continue;
      throw PluginError(file + ": built for plugin ABI " + other + ", while this ftrain has ABI " +
                        FTRAIN_STRINGIFY(FTRAIN_ABI) + ". Rebuild the plugin against this ftrain.");
    }
    throw PluginError(file + ": not a plugin of ftrain: it exports no " FTRAIN_PLUGIN_SYMBOL_NAME
                             ". A plugin is registered with FTRAIN_PLUGIN(name, registry) {...}.");
  }
  const auto& plugin = library.get<const FtrainPlugin>(FTRAIN_PLUGIN_SYMBOL_NAME);
  if (plugin.size != sizeof(FtrainPlugin)) {
    throw PluginError(file + ": its description has " + std::to_string(plugin.size) +
                      " bytes instead of " + std::to_string(sizeof(FtrainPlugin)) +
                      ". Rebuild the plugin against this ftrain.");
  }
  constexpr std::string_view own = FTRAIN_BUILD,
                             internal = FTRAIN_BUILD " internal " FTRAIN_INTERNAL_HASH;
  if (!plugin.build || (plugin.build != own && plugin.build != internal)) {
    throw PluginError(file + ": built against another ftrain.\n  the plugin: " +
                      (plugin.build ? plugin.build : "(nothing)") +
                      "\n  this ftrain: " FTRAIN_BUILD " internal " FTRAIN_INTERNAL_HASH
                      "\nRebuild the plugin with this compiler against this ftrain.");
  }
  if (!plugin.name || !plugin.setup) {
    throw PluginError(file + ": its description lacks a name or a setup function.");
  }
  return plugin;
}

}  // namespace

const FtrainPlugin& load_plugin(const std::filesystem::path& file) {
  try {
    dll::shared_library library(file, dll::load_mode::rtld_now | dll::load_mode::rtld_local);
    const FtrainPlugin& plugin = descriptor(library, file.string());
    library.load(file, dll::load_mode::rtld_now | dll::load_mode::rtld_local | keep);
    return plugin;
  } catch (const std::system_error& error) {
    const std::string why = reason(error, file.string());
    // A plugin of another build often fails on a symbol that has changed; its build string, if it
    // can be had, says more than the symbol does.
    std::error_code failed;
    dll::shared_library library(file, dll::load_mode::rtld_lazy | dll::load_mode::rtld_local,
                                failed);
    if (!failed) descriptor(library, file.string());
    throw PluginError(file.string() + ": cannot be loaded: " + why);
  }
}

std::filesystem::path installed_plugins() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&installed_plugins), &info) || !info.dli_fname) return {};
  std::error_code ignored;
  const auto self = std::filesystem::weakly_canonical(info.dli_fname, ignored);
  return self.parent_path() / "ftrain";
}

}  // namespace ftrain
