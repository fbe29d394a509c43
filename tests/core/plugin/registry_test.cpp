#include "ftrain/plugin/registry.h"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>

#include "ftrain/device/kernel.h"
#include "ftrain/model/backbone.h"
#include "ftrain/plugin/abi.h"
#include "tests/core/plugin/greeter.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using testing::UnorderedElementsAre;

const fs::path plugins = fs::weakly_canonical(fs::path(FTRAIN_PLUGINS) / "../../tests/plugins");

template <class Interface = Greeter>
std::string refusal(Registry& registry, const std::string& name, const Table& table = {}) {
  try {
    registry.create<Interface>(name, table);
  } catch (const PluginError& error) {
    return error.what();
  }
  return "no error";
}

std::vector<std::string> names(const Registry& registry) {
  std::vector<std::string> result;
  for (const auto& entry : registry.entries()) result.push_back(entry.name);
  return result;
}

bool is_mapped(const std::string& name) {
  void* handle = dlopen((plugins / (name + ".so")).c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (handle) dlclose(handle);
  return handle != nullptr;
}

TEST(Registry, CreatesAndConfiguresWhatAJobNames) {
  Registry registry({plugins});
  const Job job = Job::parse("[greeter]\nplugin = \"polite\"\nwhom = \"world\"\n");
  EXPECT_EQ(registry.create<Greeter>(job)->greet(), "good day, world");
  ASSERT_THAT(registry.entries(), SizeIs(2));
  EXPECT_EQ(registry.entries()[0].kind, "greeter");
  EXPECT_EQ(registry.entries()[0].doc, "greets");
  EXPECT_EQ(registry.entries()[0].library, plugins / "polite.so");
  EXPECT_EQ(registry.create<Greeter>("very_polite", {})->greet(), "good day, you");
}

std::string kernel_refusal(Registry& registry, const std::string& device, const KernelDef& def) {
  try {
    registry.add_kernel(device, def);
  } catch (const PluginError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Registry, KeepsKernelsByDevice) {
  const auto make = [](const Node&, const KernelEnvironment&) { return std::unique_ptr<Kernel>(); };
  Registry registry({plugins});
  registry.add_kernel("cpu", {.op = "gelu", .name = "fast", .priority = 10, .make = make});
  registry.add_kernel("cuda", {.op = "gelu", .name = "fast", .priority = 7, .make = make});
  ASSERT_THAT(registry.kernels(), SizeIs(2));
  EXPECT_EQ(registry.kernels()[0].device, "cpu");
  EXPECT_EQ(registry.kernels()[1].def->priority, 7);
  EXPECT_THAT(
      kernel_refusal(registry, "cpu", {.op = "gelu", .name = "fast", .make = make}),
      AllOf(HasSubstr("'fast' of op 'gelu'"), HasSubstr("device 'cpu'"), HasSubstr("rename")));
  EXPECT_THAT(kernel_refusal(registry, "cpu", {.op = "gelu", .name = "slow"}),
              HasSubstr("make function"));
  EXPECT_THAT(registry.kernels(), SizeIs(2));
}

TEST(Registry, LoadsLibrariesThatNoTableNames) {
  Registry registry({plugins});
  registry.load("polite");
  EXPECT_THAT(names(registry), UnorderedElementsAre("polite", "very_polite"));
  for (const char* name : {"pollite", "../plugins/polite", ""}) {
    try {
      registry.load(name);
      ADD_FAILURE() << name;
    } catch (const PluginError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("no plugin library"), HasSubstr(name)));
    }
  }
}

TEST(Registry, LoadsOnlyWhatIsNamed) {
  Registry registry({plugins});
  registry.create<Greeter>("polite", {});
  EXPECT_FALSE(is_mapped("twice"));
}

TEST(Registry, LeavesTheCallersKeysAloneAndRefusesOthers) {
  Registry registry({plugins});
  const Job job = Job::parse("[greeter]\nplugin = \"polite\"\nbatch = 3\n", "job.toml");
  EXPECT_EQ(registry.create<Greeter>(job, {"batch"})->greet(), "good day, you");
  try {
    registry.create<Greeter>(job);
    FAIL() << "an unknown key went through";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("job.toml:3:1: unknown key 'batch' in [greeter]"));
  }
}

TEST(Registry, ErrorsOfPluginsKeepTheirType) {
  Registry registry({plugins});
  const Job job = Job::parse("[greeter]\nplugin = \"polite\"\nwhom = \"nobody\"\n");
  const auto greeter = registry.create<Greeter>(job);
  EXPECT_THROW(greeter->greet(), DataError);
}

TEST(Registry, PluginsOutliveTheirRegistry) {
  std::unique_ptr<Greeter> greeter;
  {
    Registry registry({plugins});
    greeter = registry.create<Greeter>("polite", {});
  }
  EXPECT_EQ(greeter->greet(), "good day, you");
  greeter.reset();
  EXPECT_TRUE(is_mapped("polite"));
}

TEST(Registry, SaysWhereItLookedAndWhatIsNear) {
  Registry registry({plugins, "/no/such/folder"});
  const Job job = Job::parse("[greeter]\nplugin = \"polit\"\n", "job.toml");
  const std::string error = refusal(registry, "polit", job.root().table("greeter"));
  EXPECT_THAT(error, HasSubstr("job.toml:2:1: there is no greeter plugin 'polit'. Did you mean "
                               "'polite'?"));
  EXPECT_THAT(error,
              HasSubstr("polit.so was searched in " + plugins.string() + ", /no/such/folder and "));
  EXPECT_THAT(refusal(registry, "../plugins/polite"), HasSubstr("there is no greeter plugin"));
  EXPECT_THAT(refusal(registry, ""), HasSubstr("there is no greeter plugin ''"));
}

TEST(Registry, SaysWhatALibraryOffersInstead) {
  Registry registry({plugins});
  EXPECT_THAT(refusal<Leaver>(registry, "polite"),
              HasSubstr("polite.so offers no leaver 'polite'; it offers greeter 'polite' and "
                        "greeter 'very_polite'."));
}

TEST(Registry, RefusesASecondPluginOfOneNameWhole) {
  Registry registry({plugins});
  registry.create<Greeter>("polite", {});
  EXPECT_THAT(refusal(registry, "twice"),
              AllOf(HasSubstr("two plugins are called greeter 'polite'"),
                    HasSubstr((plugins / "polite.so").string()),
                    HasSubstr((plugins / "twice.so").string())));
  EXPECT_THAT(names(registry), ElementsAre("polite", "very_polite"));
}

TEST(Registry, RefusesLibrariesThatDoNotFit) {
  Registry registry({plugins});
  EXPECT_THAT(
      refusal(registry, "other_build"),
      AllOf(HasSubstr("built against another ftrain"), HasSubstr("the plugin: abi1 gcc4 c++199711"),
            HasSubstr("this ftrain: " FTRAIN_BUILD), HasSubstr("Rebuild the plugin")));
  EXPECT_THAT(refusal(registry, "unresolved"), HasSubstr("the plugin: abi1 gcc5 c++201103"));
  EXPECT_THAT(refusal(registry, "other_abi"),
              HasSubstr("built for plugin ABI 2, while this ftrain has ABI 1."));
  EXPECT_THAT(refusal(registry, "no_plugin"), HasSubstr("not a plugin of ftrain"));
  EXPECT_THAT(
      refusal<Backbone>(registry, "other_kind"),
      AllOf(HasSubstr("other headers of ftrain/backbone.h"),
            HasSubstr("the plugin: backbone headers 000000000000"),
            HasSubstr(std::string("this ftrain: backbone headers ") + kind_hash("backbone"))));
  EXPECT_THAT(refusal(registry, "failing"), HasSubstr("its setup failed: no licence"));
  EXPECT_THAT(registry.entries(), SizeIs(0));
}

TEST(Registry, RefusesAFileThatIsNoLibrary) {
  const fs::path folder = fs::path(testing::TempDir()) / "ftrain_no_library";
  fs::create_directories(folder);
  std::ofstream(folder / "text.so") << std::string(4096, 'x');
  Registry registry({folder});
  EXPECT_THAT(refusal(registry, "text"),
              HasSubstr("text.so: cannot be loaded: invalid ELF header"));
  fs::remove_all(folder);
}

TEST(Registry, LoadsAllAndReportsRefusals) {
  Registry registry({plugins});
  const auto searched = registry.folders();
  std::vector<std::string> refused;
  registry.load_all(&refused);
  EXPECT_THAT(names(registry), Contains("polite"));
  std::erase_if(refused, [](const auto& text) { return !text.starts_with(plugins.string()); });
  EXPECT_THAT(refused,
              UnorderedElementsAre(HasSubstr("twice.so: two plugins"), HasSubstr("failing.so: "),
                                   HasSubstr("other_build.so: "), HasSubstr("other_abi.so: "),
                                   HasSubstr("other_kind.so: "), HasSubstr("unresolved.so: "),
                                   HasSubstr("no_plugin.so: ")));
  const std::size_t count = registry.entries().size();
  registry.load_all();
  EXPECT_EQ(registry.entries().size(), count);
}

TEST(Registry, SearchesGivenFoldersThenTheVariableThenTheInstallation) {
  setenv("FTRAIN_PLUGIN_PATH", ("/one::/two:" + plugins.string()).c_str(), 1);
  Registry registry({"/first"});
  unsetenv("FTRAIN_PLUGIN_PATH");
  EXPECT_THAT(registry.folders(),
              ElementsAre("/first", "/one", "/two", plugins, fs::weakly_canonical(FTRAIN_PLUGINS)));
  EXPECT_EQ(registry.create<Greeter>("polite", {})->greet(), "good day, you");
}

struct Local : Greeter {
  std::string greet() override { return "here"; }
};

TEST(Registry, TakesEntriesOfTheProgramItself) {
  Registry registry;
  registry.add<Greeter, Local>("local", "in this program");
  EXPECT_EQ(registry.create<Greeter>("local", {})->greet(), "here");
  try {
    registry.add<Greeter, Local>("local", "again");
    FAIL() << "one name was taken twice";
  } catch (const PluginError& error) {
    EXPECT_THAT(error.what(), HasSubstr("one from this program, one from this program"));
  }
}

}  // namespace
}  // namespace ftrain
