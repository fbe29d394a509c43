// The file that describes a cluster: devices, links, pace. docs/scaling.md lists its keys.
//
// Read strictly, as job files are. Failure: ConfigError with file, line, rule and way out.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/config/table.h"
#include "launch/cluster/model.h"

namespace ftrain::cluster {

// What a device was measured to do with a network, class centers aside.
struct Measured {
  std::string name;      // the table's
  std::string backbone;  // the plugin's name in a job
  std::optional<std::int64_t> depth;
  std::string precision;
  double samples_per_second = 0;
};

struct DeviceDescription {
  std::string name;
  double memory = 0;     // bytes
  double bandwidth = 0;  // bytes a second that reading and writing memory reach
  double flops = 0;      // operations a second in the job's precision, as large products reach
  double reach = 1;      // share of `flops` that the backbone's convolutions reach
  double traffic = 1;    // share of the unfused step's activations that go through memory
  std::vector<Measured> measured;
};

struct Description {
  std::string name;
  std::int64_t nodes = 1, devices = 1;  // devices of a node
  std::optional<double> data_rate;      // samples a second that a node reads and decodes
  DeviceDescription device;
  Links links;
  Pace pace;

  std::int64_t size() const { return nodes * devices; }
};

// `precision`: the job's, which decides what [device.flops] is taken. `sets`:
// "link.node.latency=0".
Description load(const std::filesystem::path& file, const std::string& precision,
                 const std::vector<std::string>& sets = {});
Description parse(const Job& file, const std::string& precision);

}  // namespace ftrain::cluster
