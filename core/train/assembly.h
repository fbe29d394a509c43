// The plugins that a job names, created and configured.
//
// An Assembly reads the whole job file strictly before anything is opened, so that a slip in the
// last table is told before a data set is scanned. Ownership: it owns its plugins; the registry
// must outlive it. Threads: each rank has its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/train/settings.h"
#include "ftrain/config/table.h"
#include "ftrain/data/dataset.h"
#include "ftrain/data/pair_set.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/device.h"
#include "ftrain/model/backbone.h"
#include "ftrain/model/margin_head.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/model/parallelism.h"
#include "ftrain/model/schedule.h"
#include "ftrain/observer.h"
#include "ftrain/plugin/api.h"
#include "ftrain/plugin/registry.h"
#include "ftrain/verify/metric.h"

namespace ftrain {

struct NamedPairs {
  std::string name;  // the file's stem, or the plugin's name
  std::filesystem::path file;
  std::unique_ptr<PairSet> pairs;
};

struct FTRAIN_API Assembly {
  JobSettings job;
  DataSettings data;
  InitSettings init;
  VerifySettings verify;
  CheckpointSettings checkpoint;
  RunSettings run;
  LaunchSettings launch;

  std::unique_ptr<Device> device;
  std::unique_ptr<Backbone> backbone;
  std::unique_ptr<MarginHead> head;
  std::unique_ptr<Parallelism> parallelism;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Schedule> schedule;
  std::unique_ptr<Dataset> dataset;
  std::vector<NamedPairs> pair_sets;
  std::vector<std::unique_ptr<Metric>> metrics;
  std::vector<std::unique_ptr<Observer>> observers;

  // Reads everything; opens nothing. ConfigError, PluginError.
  Assembly(const Job& job, Registry& registry);

  // Opens the device and hands it the kernels that plugins brought for it. DeviceError;
  // PluginError where one is called as a kernel of the device's own.
  void open_device(int local_rank, int local_ranks);

  std::uint64_t seed() const { return static_cast<std::uint64_t>(job.seed); }
  // The run folder, with {name} replaced.
  std::filesystem::path folder() const;

 private:
  const Registry* registry_;
  std::string device_name_;
};

// The plugin that is the job's device. "auto" is an NVIDIA GPU where this process may see one (in
// `devices`) and the plugin for it is there, and else the CPU; whether the GPU works is seen when
// it is opened.
FTRAIN_API std::string device_name(const Job& job, const Registry& registry,
                                   const std::filesystem::path& devices = "/dev");

// A registry that searches the job's [plugins] path too and has loaded the libraries that it lists.
FTRAIN_API std::unique_ptr<Registry> registry_for(const Job& job);

}  // namespace ftrain
