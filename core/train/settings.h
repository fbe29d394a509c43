// The tables of a job that belong to the trainer itself, not to a plugin.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/checkpoint/state.h"
#include "ftrain/config/keys.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// Keys outside any table.
struct FTRAIN_API JobSettings final : Configurable {
  std::string name = "run";
  std::int64_t seed = 2048;
  void configure(Keys& keys) override;
};

// [dataset], beside the keys of the data set's plugin.
struct FTRAIN_API DataSettings final : Configurable {
  std::int64_t batch = 32, image_size = 112;
  bool shuffle = true;
  double flip = 0.5;
  std::int64_t threads = 0, prefetch = 4;
  std::string on_corrupt = "stop";
  double mean = 127.5, scale = 1 / 127.5;
  void configure(Keys& keys) override;
};

struct FTRAIN_API InitSettings final : Configurable, InitialWeights {
  void configure(Keys& keys) override;
};

struct FTRAIN_API VerifySettings final : Configurable {
  std::vector<std::filesystem::path> sets;
  std::int64_t every = 0, batch = 32, folds = 10;
  std::vector<std::string> metrics{"accuracy", "xnorm", "tar"};
  void configure(Keys& keys) override;
};

struct FTRAIN_API CheckpointSettings final : Configurable {
  std::int64_t every = 0, keep = 3;
  bool asynchronous = true;
  void configure(Keys& keys) override;
};

struct FTRAIN_API RunSettings final : Configurable {
  std::optional<std::int64_t> steps;
  std::optional<double> epochs;
  std::optional<std::int64_t> stop_at;
  std::int64_t accumulate = 1;
  std::optional<std::int64_t> timeline;
  std::string folder = "runs/{name}";
  void configure(Keys& keys) override;
};

struct FTRAIN_API LaunchSettings final : Configurable {
  std::int64_t processes = 1;
  std::vector<std::string> hosts;
  std::string communicator = "auto";
  std::string agent;
  std::int64_t max_restarts = 0;
  double timeout = 600;
  void configure(Keys& keys) override;
};

struct FTRAIN_API ObserverSettings final : Configurable {
  std::vector<std::string> use{"console", "jsonl"};
  void configure(Keys& keys) override;
};

struct FTRAIN_API PluginSettings final : Configurable {
  std::vector<std::filesystem::path> path;
  std::vector<std::string> load;
  void configure(Keys& keys) override;
};

// Refuses tables and keys at the root that no part of a job reads.
FTRAIN_API void check_root(const Job& job);

// The names of a thing's keys: for tables that two things read.
FTRAIN_API std::vector<std::string> key_names(Configurable& thing);

}  // namespace ftrain
