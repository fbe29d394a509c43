#include "launch/cluster/description.h"

#include "ftrain/base/error.h"

namespace ftrain::cluster {
namespace {

const std::vector<std::string> precisions{"fp32", "tf32", "bf16", "fp16"};

struct RootKeys final : Configurable {
  std::string name = "cluster";
  std::optional<std::int64_t> nodes, devices;
  std::optional<double> data_rate;
  void configure(Keys& keys) override {
    keys.bind("name", name, "how people call it");
    keys.bind("nodes", nodes, "the number of nodes", at_least(1));
    keys.bind("devices", devices, "devices of a node", at_least(1));
    keys.bind("data_rate", data_rate, "samples a second that a node reads and decodes", above(0));
  }
};

struct DeviceKeys final : Configurable {
  std::string name = "device";
  std::optional<double> memory, bandwidth;
  double reach = 1, traffic = 1;
  void configure(Keys& keys) override {
    keys.bind("name", name, "what the device is called");
    keys.bind("memory", memory, "bytes", above(0));
    keys.bind("bandwidth", bandwidth, "bytes a second that its memory reaches", above(0));
    keys.bind("reach", reach, "share of the operations a second that a backbone reaches",
              between(0.001, 1));
    keys.bind("traffic", traffic, "share of the unfused step's activations that go through memory",
              between(0, 1));
  }
};

struct FlopsKeys final : Configurable {
  std::vector<std::optional<double>> values = std::vector<std::optional<double>>(precisions.size());
  void configure(Keys& keys) override {
    for (std::size_t i = 0; i < precisions.size(); ++i) {
      keys.bind(precisions[i], values[i], "operations a second that large products reach",
                above(0));
    }
  }
};

struct MeasuredKeys final : Configurable {
  Measured measured;
  std::optional<double> samples_per_second;
  void configure(Keys& keys) override {
    keys.require("backbone", measured.backbone, "the backbone plugin of a job");
    keys.bind("depth", measured.depth, "its depth, where it has one", at_least(1));
    measured.precision = "fp32";
    keys.bind("precision", measured.precision, "what it was measured in", one_of(precisions));
    keys.bind("samples_per_second", samples_per_second,
              "samples a second of one device, class centers aside", above(0));
  }
};

struct LinkKeys final : Configurable {
  double latency = 0;
  std::optional<double> bandwidth;
  bool shared = false;
  void configure(Keys& keys) override {
    keys.bind("latency", latency, "seconds that a message takes beside its bytes", at_least(0));
    keys.bind("bandwidth", bandwidth, "bytes a second, one way", above(0));
    keys.bind("shared", shared, "whether all devices of a node share it");
  }
};

struct PaceKeys final : Configurable {
  Pace pace{.overlap = 0.9};
  void configure(Keys& keys) override {
    keys.bind("overlap", pace.overlap, "share of the gradients' sums that hides behind backward",
              between(0, 1));
    keys.bind("slowdown", pace.slowdown,
              "share by which devices compute slower where they communicate", at_least(0));
    keys.bind("wait", pace.wait,
              "seconds that ranks wait for each other a step, by doubling of their number",
              at_least(0));
  }
};

[[noreturn]] void refuse(const Table& table, std::string_view key, const std::string& message) {
  const std::string place = table.place(key).text();
  throw ConfigError((place.empty() ? "" : place + ": ") + message);
}

// A key that has no default: `example` stands in the way out.
template <class T>
T needed(const Table& table, std::string_view key, const std::optional<T>& value,
         const std::string& example) {
  if (value) return *value;
  const std::string where = table.name().empty() ? "" : "[" + table.name() + "] ";
  refuse(table, key,
         where + std::string(key) + " is missing; give it as in: " + std::string(key) + " = " +
             example);
}

Link read_link(const Table& links, const char* key, bool needs) {
  const Table table = links.table(key);
  if (!needs && !links.has(key)) return {};
  LinkKeys keys;
  table.read(keys);
  return {keys.latency, needed(table, "bandwidth", keys.bandwidth, "100e9"), keys.shared};
}

DeviceDescription read_device(const Table& table, const std::string& precision) {
  DeviceKeys keys;
  table.read(keys, {"flops", "measured"});
  DeviceDescription device;
  device.name = keys.name;
  device.reach = keys.reach;
  device.traffic = keys.traffic;
  device.memory = needed(table, "memory", keys.memory, "141e9");
  device.bandwidth = needed(table, "bandwidth", keys.bandwidth, "4.3e12");
  const Table flops_table = table.table("flops");
  FlopsKeys flops;
  flops_table.read(flops);
  std::string given;
  for (std::size_t i = 0; i < precisions.size(); ++i) {
    if (!flops.values[i]) continue;
    given += (given.empty() ? "" : ", ") + precisions[i];
    if (precisions[i] == precision) device.flops = *flops.values[i];
  }
  if (device.flops == 0) {
    refuse(flops_table, {},
           "[device.flops] has no " + precision + ", which the job computes in" +
               (given.empty() ? "" : " (it has " + given + ")") + "; add " + precision +
               " = OPERATIONS A SECOND, or choose another with --set device.precision=...");
  }
  const Table measured = table.table("measured");
  for (const std::string& name : measured.keys()) {
    const Table entry = measured.table(name);
    MeasuredKeys found;
    entry.read(found);
    found.measured.name = name;
    found.measured.samples_per_second =
        needed(entry, "samples_per_second", found.samples_per_second, "250.0");
    device.measured.push_back(found.measured);
  }
  return device;
}

}  // namespace

Description parse(const Job& file, const std::string& precision) {
  const Table& root = file.root();
  RootKeys keys;
  root.read(keys, {"device", "link", "step"});
  Description cluster;
  cluster.name = keys.name;
  cluster.data_rate = keys.data_rate;
  cluster.nodes = needed(root, "nodes", keys.nodes, "4");
  cluster.devices = needed(root, "devices", keys.devices, "8");
  cluster.device = read_device(root.table("device"), precision);
  const Table links = root.table("link");
  for (const std::string& key : links.keys()) {
    if (key == "inside" || key == "between") continue;
    refuse(links, key,
           "[link] has no '" + key + "': the tables are [link.inside], within a node, and " +
               "[link.between], between nodes");
  }
  cluster.links.inside = read_link(links, "inside", cluster.devices > 1);
  cluster.links.between = read_link(links, "between", cluster.nodes > 1);
  PaceKeys pace;
  root.table("step").read(pace);
  cluster.pace = pace.pace;
  return cluster;
}

Description load(const std::filesystem::path& file, const std::string& precision,
                 const std::vector<std::string>& sets) {
  return parse(Job::load(file, sets), precision);
}

}  // namespace ftrain::cluster
