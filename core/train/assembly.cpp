#include "core/train/assembly.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "core/verify/metrics.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;

// Device files: nvidia0, nvidia1, ...
bool sees_nvidia_gpu(const fs::path& devices) {
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) {
    const std::string_view text = visible;
    if (text.empty() || text == "-1" || text == "NoDevFiles") return false;
  }
  std::error_code failure;
  for (const fs::directory_entry& entry : fs::directory_iterator(devices, failure)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("nvidia") && name.size() > 6 && name[6] >= '0' && name[6] <= '9') {
      return true;
    }
  }
  return false;
}

bool has_library(const Registry& registry, const char* file) {
  const auto& folders = registry.folders();
  return std::any_of(folders.begin(), folders.end(),
                     [&](const fs::path& folder) { return fs::exists(folder / file); });
}

std::vector<NamedPairs> make_pair_sets(const Table& verify, const VerifySettings& settings,
                                       Registry& registry) {
  std::vector<NamedPairs> sets;
  for (const std::filesystem::path& source : settings.sets) {
    NamedPairs set;
    std::string plugin = source.extension().string();
    if (plugin.empty()) {
      set.name = plugin = source.string();
    } else {
      plugin.erase(0, 1);
      set.name = source.stem().string();
      set.file = source;
    }
    set.pairs = registry.create<PairSet>(plugin, verify.table(plugin));
    sets.push_back(std::move(set));
  }
  return sets;
}

}  // namespace

Assembly::Assembly(const Job& source, Registry& registry)
    : registry_(&registry), device_name_(ftrain::device_name(source, registry)) {
  check_root(source);
  add_metrics(registry);
  const Table& root = source.root();
  root.read(job, root.keys());
  device = registry.create<Device>(device_name_, root.table("device"));
  backbone = registry.create<Backbone>(source);
  head = registry.create<MarginHead>(source);
  const Table parallel = root.table("parallelism");
  parallelism = registry.create<Parallelism>(parallel.text("plugin", "data_parallel"), parallel);
  optimizer = registry.create<Optimizer>(source);
  schedule = registry.create<Schedule>(source);

  const Table dataset_table = root.table("dataset");
  dataset = registry.create<Dataset>(source, key_names(data));
  std::vector<std::string> others = key_names(*dataset);
  others.emplace_back("plugin");
  dataset_table.read(data, others);

  root.table("init").read(init);
  const Table verify_table = root.table("verify");
  std::vector<std::string> set_tables;
  for (const std::string& key : verify_table.keys()) {
    if (verify_table.is_table(key)) set_tables.push_back(key);
  }
  verify_table.read(verify, set_tables);
  pair_sets = make_pair_sets(verify_table, verify, registry);
  for (const std::string& name : verify.metrics) {
    metrics.push_back(registry.create<Metric>(name, verify_table.table(name)));
  }
  root.table("checkpoint").read(checkpoint);
  root.table("run").read(run);
  root.table("launch").read(launch);

  const Table observer_table = root.table("observers");
  ObserverSettings settings;
  std::vector<std::string> observer_tables;
  for (const std::string& key : observer_table.keys()) {
    if (observer_table.is_table(key)) observer_tables.push_back(key);
  }
  observer_table.read(settings, observer_tables);
  for (const std::string& name : settings.use) {
    observers.push_back(registry.create<Observer>(name, observer_table.table(name)));
  }
}

std::string device_name(const Job& job, const Registry& registry, const fs::path& devices) {
  std::string name = job.root().table("device").text("plugin", "auto");
  if (name != "auto") return name;
  return sees_nvidia_gpu(devices) && has_library(registry, "cuda.so") ? "cuda" : "cpu";
}

void Assembly::open_device(int local_rank, int local_ranks) {
  device->open(local_rank, local_ranks);
  for (const Registry::KernelEntry& kernel : registry_->kernels()) {
    if (kernel.device != device_name_) continue;
    for (const KernelDef* own : device->kernels().of(kernel.def->op)) {
      if (own->name != kernel.def->name) continue;
      throw PluginError(kernel.library.string() + ": its kernel '" + std::string(own->name) +
                        "' of op '" + std::string(own->op) + "' is called as one of the device '" +
                        device_name_ + "' itself; rename it");
    }
    device->add_kernel(*kernel.def);
  }
}

std::filesystem::path Assembly::folder() const {
  std::string text = run.folder;
  const std::string slot = "{name}";
  if (const auto at = text.find(slot); at != std::string::npos) {
    text.replace(at, slot.size(), job.name);
  }
  return text;
}

std::unique_ptr<Registry> registry_for(const Job& job) {
  PluginSettings settings;
  const Table table = job.root().table("plugins");
  table.read(settings);
  auto registry = std::make_unique<Registry>(settings.path);
  for (const std::string& name : settings.load) {
    try {
      registry->load(name);
    } catch (const PluginError& error) {
      throw PluginError(table.place("load").text() + ": " + error.what());
    }
  }
  return registry;
}

}  // namespace ftrain
