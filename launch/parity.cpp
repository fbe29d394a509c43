// ftrain parity: is it the same training in every parallelism, on any number of ranks?
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "launch/command_line.h"
#include "launch/parity_runs.h"
#include "launch/ranks/signals.h"

namespace ftrain::launch {
namespace {

namespace fs = std::filesystem;
namespace options = boost::program_options;

// Rounding of bf16 is 2^16 times that of fp32; a sum of many terms shows some of it.
constexpr double fp32_tolerance = 1e-5, bf16_tolerance = 2e-2;

// A change of the rate as small as what rounding does to a gradient of a deep network.
constexpr double disturbance = 1e-5;

// The value of a plugin's key as text, without quotes; empty: it has no such key, or none is set.
std::string value_of(Configurable& plugin, const std::string& key) {
  for (const KeyDoc& doc : describe(plugin)) {
    if (doc.name != key) continue;
    std::string value = doc.standard;
    std::erase(value, '"');
    return value;
  }
  return {};
}

double number_of(const std::string& text) {
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

struct Setup {
  std::string job, precision;
  std::vector<ParityCase> strategies;
  // Of a job that trains with a part of the classes: its strategy, and how much of them.
  std::string sampling, sample;
  ParitySettings runs;
  double tolerance = fp32_tolerance;
  std::vector<int> ranks;
};

std::vector<int> ranks_of(const CommandLine& line, std::int64_t global_batch) {
  std::vector<int> ranks;
  if (!line.has("ranks")) {
    for (const int count : {1, 2, 4}) {
      if (global_batch % count == 0) ranks.push_back(count);
    }
    return ranks;
  }
  std::istringstream text(line.text("ranks"));
  for (std::string word; std::getline(text, word, ',');) {
    int count = 0;
    const auto [end, failure] = std::from_chars(word.data(), word.data() + word.size(), count);
    if (failure != std::errc() || end != word.data() + word.size() || count < 1) {
      throw ConfigError("--ranks: wanted are whole numbers as in 1,2,4, got '" + word + "'");
    }
    if (global_batch % count != 0) {
      throw ConfigError("--ranks: a step takes " + std::to_string(global_batch) +
                        " samples, which " + std::to_string(count) +
                        " ranks cannot share evenly; choose another number, or the samples of a "
                        "step with --batch");
    }
    ranks.push_back(count);
  }
  if (ranks.empty()) throw ConfigError("--ranks: wanted are whole numbers as in 1,2,4");
  return ranks;
}

// Those that --strategies names; else ftrain's own and the job's. ConfigError for one that is not
// there.
std::vector<ParityCase> strategies_of(const CommandLine& line, const std::string& own,
                                      Registry& registry) {
  std::vector<std::string> names{"data_parallel", "model_parallel", "partial_fc"};
  if (line.has("strategies")) {
    names.clear();
    std::istringstream text(line.text("strategies"));
    for (std::string word; std::getline(text, word, ',');) names.push_back(word);
    if (names.empty()) throw ConfigError("--strategies: wanted are names as in data_parallel,mine");
  } else if (std::find(names.begin(), names.end(), own) == names.end()) {
    names.push_back(own);
  }
  std::vector<ParityCase> strategies;
  for (const std::string& name : names) {
    // With its defaults: whether it can sample classes is seen from its keys.
    const auto plugin = registry.create<Parallelism>(name, Table());
    strategies.push_back(
        {.parallelism = name, .samples = !value_of(*plugin, "sample_rate").empty()});
  }
  return strategies;
}

Setup setup_of(const CommandLine& line, const Job& job, Registry& registry) {
  Assembly assembly(job, registry);
  Setup setup;
  setup.job = assembly.job.name;
  setup.precision = value_of(*assembly.device, "precision");
  const std::string own = job.root().table("parallelism").text("plugin", "data_parallel");
  setup.strategies = strategies_of(line, own, registry);
  const std::string rate = value_of(*assembly.parallelism, "sample_rate");
  if (!rate.empty()) {
    setup.sampling = own;
    const std::string number = value_of(*assembly.parallelism, "num_sample");
    if (job.root().table("parallelism").has("num_sample")) {
      setup.sample = number + " classes";
    } else if (number_of(rate) < 1) {
      setup.sample = rate;
    }
  }
  setup.runs.steps = line.value<std::int64_t>("steps");
  setup.runs.global_batch =
      line.has("batch") ? line.value<std::int64_t>("batch")
                        : assembly.data.batch * assembly.launch.processes * assembly.run.accumulate;
  setup.runs.rate = line.value<double>("rate");
  setup.tolerance = line.has("tolerance")       ? line.value<double>("tolerance")
                    : setup.precision == "bf16" ? bf16_tolerance
                                                : fp32_tolerance;
  if (setup.runs.steps < 1) throw ConfigError("--steps: wanted is at least 1");
  if (setup.runs.global_batch < 1) throw ConfigError("--batch: wanted is at least 1");
  if (!(setup.tolerance >= 0)) throw ConfigError("--tolerance: wanted is at least 0");
  setup.ranks = ranks_of(line, setup.runs.global_batch);
  return setup;
}

// A folder that goes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(fs::temp_directory_path() / ("ftrain-parity-runs-" + std::to_string(::getpid()))) {}
  ~TemporaryFolder() {
    log::also_to({});
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

struct Row {
  ParityCase setting;
  std::string name;
  double last_loss = 0;
  std::int64_t steps = 0;
  std::optional<ParityDifference> difference;  // none: the reference itself
  bool same = true;
  bool judged = true;
};

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string padded(const std::string& text, std::size_t width, bool right = true) {
  const std::string blanks(width > text.size() ? width - text.size() : 0, ' ');
  return right ? blanks + text : text + blanks;
}

std::string line_of(const std::string& name, const std::string& ranks, const std::string& last,
                    const std::string& first, const std::string& loss, const std::string& backbone,
                    const std::string& centers) {
  std::string line = padded(name, 22, false) + padded(ranks, 5);
  for (const std::string* column : {&last, &first, &loss, &backbone, &centers}) {
    line += padded(*column, 12);
  }
  return line + "\n";
}

std::string text_of(const Row& row) {
  const auto difference = [&](double ParityDifference::*part) {
    return row.difference ? number("%.1e", *row.difference.*part) : std::string("-");
  };
  std::string text =
      line_of(row.name, std::to_string(row.setting.ranks), number("%.6f", row.last_loss),
              difference(&ParityDifference::first_loss), difference(&ParityDifference::loss),
              difference(&ParityDifference::backbone), difference(&ParityDifference::centers));
  if (!row.same) text.insert(text.size() - 1, "  differs");
  return text;
}

std::string head_of(const Setup& setup) {
  std::string text = setup.job + ": " + std::to_string(setup.runs.steps) + " steps of " +
                     std::to_string(setup.runs.global_batch) + " samples at rate " +
                     number("%g", setup.runs.rate) + ", batch norm over all samples of a step, " +
                     setup.precision + "\n" + "tolerance " + number("%g", setup.tolerance);
  if (setup.precision == "bf16") text += " (bf16 rounds more coarsely than fp32)";
  text += "; differences are from the first row";
  if (!setup.sample.empty()) text += ", those of a sample from its own first row";
  return text + "\n\n" + line_of("", "", "last", "first loss", "losses", "backbone", "centers") +
         line_of("parallelism", "ranks", "loss", "differs by", "differ by", "differs by",
                 "differ by");
}

std::string json_of(const Setup& setup, const std::vector<Row>& rows, bool same) {
  using Json = nlohmann::ordered_json;
  Json list = Json::array();
  for (const Row& row : rows) {
    Json item{{"parallelism", row.setting.parallelism},
              {"sampled", row.setting.sampled},
              {"ranks", row.setting.ranks},
              {"steps", row.steps},
              {"last_loss", row.last_loss},
              {"reference", !row.difference},
              {"disturbed", !row.judged}};
    if (row.difference) {
      item["first_loss_difference"] = row.difference->first_loss;
      item["loss_difference"] = row.difference->loss;
      item["backbone_difference"] = row.difference->backbone;
      item["backbone_tensor"] = row.difference->tensor;
      item["centers_difference"] = row.difference->centers;
    }
    item["same"] = row.same;
    list.push_back(std::move(item));
  }
  return Json{{"job", setup.job},
              {"steps", setup.runs.steps},
              {"global_batch", setup.runs.global_batch},
              {"rate", setup.runs.rate},
              {"precision", setup.precision},
              {"tolerance", setup.tolerance},
              {"same", same},
              {"rows", std::move(list)}}
             .dump(2) +
         "\n";
}

// All runs, one after the other, each told as soon as it is over; fewer after a signal.
template <class Tell>
std::vector<Row> run_all(const std::string& job, Registry& registry, const Setup& setup,
                         const Tell& tell) {
  std::vector<ParityCase> cases;
  for (const int ranks : setup.ranks) {
    for (ParityCase one : setup.strategies) {
      one.ranks = ranks;
      cases.push_back(one);
    }
  }
  if (!setup.sample.empty()) {
    for (const int ranks : setup.ranks) cases.push_back({setup.sampling, true, true, ranks});
  }
  // A sample of the classes is another training than all of them.
  std::optional<ParityReference> references[2];
  std::vector<Row> rows;
  const auto add = [&](const ParitySettings& runs, const ParityCase& one, const std::string& name,
                       bool judged) {
    Row row;
    row.setting = one;
    row.name = name;
    row.judged = judged;
    const ParityRun run = train(job, registry, runs, one);
    if (interrupted() != 0) return;
    row.steps = static_cast<std::int64_t>(run.losses.size());
    row.last_loss = run.losses.empty() ? std::nan("") : run.losses.back();
    std::optional<ParityReference>& reference = references[one.sampled ? 1 : 0];
    if (reference) {
      row.difference = compare(run, *reference);
      for (const double value : {row.difference->first_loss, row.difference->loss,
                                 row.difference->backbone, row.difference->centers}) {
        if (judged && !(value <= setup.tolerance)) row.same = false;
      }
    } else {
      reference = reference_of(run);
      row.same = std::isfinite(row.last_loss);
    }
    tell(row);
    rows.push_back(std::move(row));
  };
  for (const ParityCase& one : cases) {
    std::string name = one.parallelism;
    if (one.samples) name += one.sampled ? ", " + setup.sample : ", all";
    add(setup.runs, one, name, true);
    if (interrupted() != 0) return rows;
  }
  if (std::all_of(rows.begin(), rows.end(), [](const Row& row) { return row.same; })) return rows;
  // How much of it may be rounding: what a trifle does to this job.
  ParitySettings disturbed = setup.runs;
  disturbed.rate *= 1 + disturbance;
  add(disturbed, cases.front(), "rate x 1.00001", false);
  return rows;
}

}  // namespace

int parity_command(const Words& words) {
  CommandLine line(
      "ftrain parity JOB [options]",
      "Trains the job's first steps in every parallelism on several numbers of ranks, which are "
      "threads of this process, each time with the same samples, a small constant rate and batch "
      "norm over all samples of a step, and compares losses and weights. Nothing of it is kept. "
      "Exits with 0 when all are the same within the tolerance, with 4 when one is not.");
  line.job_arguments();
  line.options()("steps", options::value<std::int64_t>()->default_value(20)->value_name("N"),
                 "how many steps")(
      "strategies", options::value<std::string>()->value_name("LIST"),
      "parallelism plugins to compare, the first one is what others are held against; unless "
      "given ftrain's own and the job's")(
      "ranks", options::value<std::string>()->value_name("LIST"),
      "numbers of ranks, as in 1,2,4, which stands unless given, where "
      "they share the samples evenly")(
      "batch", options::value<std::int64_t>()->value_name("N"),
      "samples of a step over all ranks, instead of the job's batch x processes x accumulate")(
      "rate", options::value<double>()->default_value(0.001, "0.001")->value_name("RATE"),
      "learning rate")("tolerance", options::value<double>()->value_name("X"),
                       "largest relative difference; unless given 1e-5, for bf16 2e-2")(
      "json", "print one JSON object");
  if (!line.parse(words)) return 0;
  const Job job = line.job();
  const auto registry = registry_for(job);
  Setup setup = setup_of(line, job, *registry);
  log::quiet(true);
  const TemporaryFolder folder;
  setup.runs.folder = folder.path();
  watch_signals(Listener::quiet_rank);
  setup.runs.interrupted = &interrupted();
  const bool json = line.has("json");
  if (!json) std::cout << head_of(setup) << std::flush;
  const std::vector<Row> rows = run_all(job.resolved(), *registry, setup, [&](const Row& row) {
    if (!json) std::cout << text_of(row) << std::flush;
  });
  if (const int signal = interrupted(); signal != 0) {
    return static_cast<int>(signal == SIGINT ? ExitCode::interrupted : ExitCode::terminated);
  }
  const auto judged =
      std::count_if(rows.begin(), rows.end(), [](const Row& r) { return r.judged; });
  const auto different =
      std::count_if(rows.begin(), rows.end(), [](const Row& r) { return !r.same; });
  const bool same = different == 0;
  if (json) {
    std::cout << json_of(setup, rows, same);
  } else if (same) {
    std::cout << "\nthe same training: " << judged << " runs agree\n";
  } else {
    std::cout << "\nnot the same training: " << different << " of " << judged
              << " runs differ by more than " << number("%g", setup.tolerance)
              << "\nThe last row is the first one at a rate larger by 1e-5 of itself. Where it "
                 "differs too, this job amplifies rounding, and a smaller --rate, fewer --steps or "
                 "optimizer.clip let the comparison see more.\n";
  }
  return same ? 0 : static_cast<int>(ExitCode::device);
}

}  // namespace ftrain::launch
