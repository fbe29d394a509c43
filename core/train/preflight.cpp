#include "core/train/preflight.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>

#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "ftrain/base/mapped_file.h"
#include "ftrain/base/suggest.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/plugin/abi.h"

namespace ftrain {
namespace {

using Json = nlohmann::json;

constexpr std::int64_t kSamples = 64;
constexpr double kClockSeconds = 5;
// Tables that may differ: how ranks are started and where plugins lie, what a rank tells of itself.
const std::set<std::string> kFreeTables{"launch", "plugins", "observers"};

std::string hex(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string number(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// "head.margin" -> "0.5" of every key that must be the same.
std::map<std::string, std::string> settings_of(const std::string& job) {
  std::map<std::string, std::string> settings;
  std::istringstream lines(job);
  std::string table;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with('[') && line.ends_with(']')) {
      table = line.substr(1, line.size() - 2);
      continue;
    }
    const std::size_t sign = line.find(" = ");
    if (sign == std::string::npos || kFreeTables.contains(table.substr(0, table.find('.')))) {
      continue;
    }
    settings[(table.empty() ? "" : table + ".") + line.substr(0, sign)] = line.substr(sign + 3);
  }
  return settings;
}

// The ranks that have something else than most, by what they have.
struct Odd {
  std::vector<std::string> names;
  std::string has;
};
struct Split {
  std::vector<Odd> odd;
  std::string others, right;  // "3 ranks", and what they have
};

// An empty value: the rank has none and is left out.
Split compare(const std::vector<RankFacts>& ranks,
              const std::function<std::optional<std::string>(const RankFacts&)>& value) {
  std::vector<Odd> groups;  // in the order of their first ranks
  for (const RankFacts& rank : ranks) {
    const auto has = value(rank);
    if (!has) continue;
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const Odd& known) { return known.has == *has; });
    if (group == groups.end()) group = groups.insert(groups.end(), Odd{{}, *has});
    group->names.push_back(rank.name);
  }
  Split split;
  if (groups.size() < 2) return split;
  // The first of the largest: where it is a draw, the one with the lowest rank.
  const auto most = std::max_element(groups.begin(), groups.end(), [](const Odd& a, const Odd& b) {
    return a.names.size() < b.names.size();
  });
  split.right = most->has;
  split.others =
      most->names.size() == 1 ? most->names[0] : std::to_string(most->names.size()) + " ranks";
  groups.erase(most);
  split.odd = std::move(groups);
  return split;
}

// "rank 3 on node07 has", "rank 1 on a, rank 2 on a and 5 more have".
std::string subject(const std::vector<std::string>& names) {
  constexpr std::size_t shown = 4;
  std::vector<std::string> words(
      names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(shown, names.size())));
  if (names.size() > shown) words.push_back(std::to_string(names.size() - shown) + " more");
  return join(words) + (names.size() == 1 ? " has" : " have");
}

// "rank 3 on node07 has another data set (fingerprint 12.., 3 ranks: 34..). "
std::string sentences(const Split& split, const std::string& thing, const std::string& measure) {
  std::string text;
  for (const Odd& odd : split.odd) {
    text += subject(odd.names) + " " + thing + " (" + measure + odd.has + "; " + split.others +
            ": " + split.right + "). ";
  }
  return text;
}

std::string compare_programs(const std::vector<RankFacts>& ranks) {
  std::string text =
      sentences(compare(ranks, [](const RankFacts& r) { return std::optional(r.version); }),
                "another version of ftrain", "");
  text += sentences(compare(ranks, [](const RankFacts& r) { return std::optional(r.build); }),
                    "another build of ftrain", "");
  std::set<std::string> names;
  for (const RankFacts& rank : ranks) {
    for (const auto& [name, checksum] : rank.libraries) names.insert(name);
  }
  for (const std::string& name : names) {
    const Split split = compare(ranks, [&](const RankFacts& rank) -> std::optional<std::string> {
      const auto found = rank.libraries.find(name);
      if (found == rank.libraries.end()) return {};
      return hex(found->second);
    });
    text += sentences(split, "another plugin " + name, "checksum ");
  }
  if (!text.empty()) text += "Install the same build of ftrain and its plugins on every machine.";
  return text;
}

std::string compare_jobs(const std::vector<RankFacts>& ranks) {
  constexpr std::size_t shown = 3;
  const Split split = compare(ranks, [](const RankFacts& r) { return std::optional(r.job); });
  std::string text;
  for (const Odd& odd : split.odd) {
    const auto mine = settings_of(odd.has), theirs = settings_of(split.right);
    std::set<std::string> keys;
    for (const auto* settings : {&mine, &theirs}) {
      for (const auto& [key, value] : *settings) keys.insert(key);
    }
    const auto value = [](const auto& settings, const std::string& key) {
      const auto found = settings.find(key);
      return found == settings.end() ? "nothing" : found->second;
    };
    std::vector<std::string> words;
    for (const std::string& key : keys) {
      const std::string here = value(mine, key), there = value(theirs, key);
      if (here != there) words.push_back(key + " = " + here + " instead of " + there);
    }
    if (words.size() > shown) {
      const std::string rest = std::to_string(words.size() - shown) + " more";
      words.resize(shown);
      words.push_back(rest);
    }
    text += subject(odd.names) + " another job than " + split.others + ": " +
            join(words, " and ", "its keys stand in another order") + ". ";
  }
  if (!text.empty()) text += "Start all ranks with the same job file and the same --set.";
  return text;
}

// The reference is the clock with which the most clocks agree, of the lowest rank of those.
std::string compare_clocks(const std::vector<RankFacts>& ranks) {
  const RankFacts* right = nullptr;
  std::ptrdiff_t best = 0;
  for (const RankFacts& rank : ranks) {
    const auto agree = std::count_if(ranks.begin(), ranks.end(), [&](const RankFacts& other) {
      return std::abs(other.clock - rank.clock) <= kClockSeconds;
    });
    if (agree > best) right = &rank;
    best = std::max(best, agree);
  }
  std::vector<std::string> words;
  for (const RankFacts& rank : ranks) {
    const double off = rank.clock - right->clock;
    if (std::abs(off) <= kClockSeconds) continue;
    words.push_back(rank.name + " is " + number("%.0f", std::abs(off)) + " s " +
                    (off > 0 ? "ahead of" : "behind"));
  }
  if (words.empty()) return {};
  return "the clocks of the ranks differ: " + join(words) + " " + right->name +
         "; times in logs do not compare. Let a time service set them.";
}

Json to_json(const RankFacts& facts) {
  return {{"version", facts.version}, {"build", facts.build}, {"libraries", facts.libraries},
          {"job", facts.job},         {"data", facts.data},   {"clock", facts.clock},
          {"name", facts.name}};
}

RankFacts from_json(const Json& json) {
  return {json.at("name"), json.at("version"), json.at("build"), json.at("libraries"),
          json.at("job"),  json.at("data"),    json.at("clock")};
}

// What of the job must be the same, with its keys in one order.
std::string comparable(const Job& job) {
  std::map<std::string, std::string> tables;
  for (const auto& [key, value] : settings_of(job.resolved())) {
    const std::size_t dot = key.rfind('.');
    const bool root = dot == std::string::npos;
    tables[root ? "" : key.substr(0, dot)] +=
        (root ? key : key.substr(dot + 1)) + " = " + value + "\n";
  }
  std::string text;
  for (const auto& [table, lines] : tables) {
    text += (table.empty() ? "" : "[" + table + "]\n") + lines;
  }
  return text;
}

double seconds_of(const std::function<void()>& what) {
  const auto start = std::chrono::steady_clock::now();
  what();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::uint64_t fingerprint(const Dataset& dataset) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                       &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  const auto add = [&](std::int64_t value) {
    XXH3_64bits_update(state.get(), &value, sizeof value);
  };
  const std::int64_t size = dataset.size();
  add(size);
  add(dataset.classes());
  const std::int64_t samples = std::min(kSamples, size);
  Sample sample;
  for (std::int64_t i = 0; i < samples; ++i) {
    // The first, the last, and even steps between.
    const std::int64_t index = samples == 1 ? 0 : i * (size - 1) / (samples - 1);
    dataset.read(index, sample);
    add(sample.label);
    add(static_cast<std::int64_t>(sample.bytes.size()));
    XXH3_64bits_update(state.get(), sample.bytes.data(), sample.bytes.size());
  }
  return XXH3_64bits_digest(state.get());
}

Disagreement compare_ranks(const std::vector<RankFacts>& ranks) {
  Disagreement result;
  result.programs = compare_programs(ranks);
  result.jobs = compare_jobs(ranks);
  result.data =
      sentences(compare(ranks, [](const RankFacts& r) { return std::optional(hex(r.data)); }),
                "another data set", "fingerprint ");
  if (!result.data.empty()) {
    result.data += "Copy the same files to every machine, or keep them where all machines read.";
  }
  result.clocks = compare_clocks(ranks);
  return result;
}

void check_ranks_agree(Communicator& communicator, const Job& job, const Registry& registry,
                       const Dataset& dataset) {
  if (communicator.size() == 1) return;
  communicator.working_on({"comparing program, job and data with the other ranks"});
  RankPlace place = communicator.place();
  place.rank = communicator.rank();
  RankFacts mine{.name = place.text(),
                 .version = FTRAIN_VERSION,
                 .build = FTRAIN_BUILD,
                 .libraries = {},
                 .job = comparable(job),
                 .data = fingerprint(dataset)};
  for (const std::filesystem::path& library : registry.libraries()) {
    const MappedFile file(library);
    mine.libraries[library.filename().string()] =
        XXH3_64bits(file.bytes().data(), file.bytes().size());
  }
  communicator.barrier();
  mine.clock =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();

  std::vector<RankFacts> ranks;
  const std::string text = to_json(mine).dump(-1, ' ', false, Json::error_handler_t::replace);
  for (const std::string& one : gather_texts(communicator, text)) {
    ranks.push_back(from_json(Json::parse(one)));
  }
  const Disagreement found = compare_ranks(ranks);
  const bool first = communicator.rank() == 0;
  if (first && !found.clocks.empty()) log::warning(found.clocks);
  std::string message;
  for (const std::string* part : {&found.programs, &found.jobs, &found.data}) {
    if (!part->empty()) message += (message.empty() ? "" : " ") + *part;
  }
  if (message.empty()) return;
  if (!first) throw PeerError(message);
  if (!found.programs.empty()) throw PluginError(message);
  if (!found.jobs.empty()) throw ConfigError(message);
  throw DataError(message);
}

void check_layouts_agree(Communicator& communicator, const Program& step,
                         const std::string& device) {
  std::string exchanged;
  for (std::int32_t i = 0; i < step.graph->size(); ++i) {
    const Node& node = step.graph->node(i);
    if (!is_collective(node)) continue;
    for (const Value& input : node.inputs) exchanged += input.type().text() + ";";
  }
  const std::string mine = hex(XXH3_64bits(exchanged.data(), exchanged.size())) + " " + device;
  const std::vector<std::string> all = gather_texts(communicator, mine);
  for (std::size_t r = 1; r < all.size(); ++r) {
    const auto layouts = [&](std::size_t rank) { return all[rank].substr(0, all[rank].find(' ')); };
    if (layouts(r) == layouts(0)) continue;
    const auto name = [&](std::size_t rank) { return all[rank].substr(all[rank].find(' ') + 1); };
    const std::string message = "rank " + std::to_string(r) + " (" + name(r) +
                                ") lays tensors out otherwise than rank 0 (" + name(0) +
                                "), so that their gradients cannot be summed; give all ranks the "
                                "same [device] isa, such as \"avx2\"";
    if (communicator.rank() == 0) throw DeviceError(message);
    throw PeerError(message);
  }
}

std::string measure_ranks(Communicator& communicator) {
  const int size = communicator.size();
  if (size == 1) return "ranks: 1";
  communicator.working_on({"measuring the connections between the ranks"});
  const auto hosts = gather_texts(communicator, communicator.place().host);
  const std::size_t machines = std::set(hosts.begin(), hosts.end()).size();

  std::vector<float> data;
  // The time of one all-reduce, in which all ranks are done; the same on all ranks.
  const auto time = [&](std::int64_t floats) {
    data.resize(static_cast<std::size_t>(floats));
    communicator.barrier();
    double seconds = seconds_of(
        [&] { communicator.all_reduce(data.data(), floats, DType::f32, Reduction::sum); });
    communicator.all_reduce(&seconds, 1, DType::f64, Reduction::max);
    return seconds;
  };
  const auto median = [&](std::int64_t floats, int times) {
    std::vector<double> seconds;
    for (int i = 0; i < times; ++i) seconds.push_back(time(floats));
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  };
  // On a slow network a smaller piece must do: the whole takes a few tenths of a second.
  constexpr std::int64_t mib = 1 << 18;  // in floats
  constexpr double patience = 0.3;
  time(mib / 16);
  std::int64_t pieces = 1;
  double seconds = time(mib);
  if (seconds * 16 < patience / 2) {
    pieces = 16;
    seconds = time(16 * mib);
  }
  const int times = static_cast<int>(std::clamp(patience / seconds, 1.0, 5.0));
  seconds = median(pieces * mib, times);
  const double latency = median(2, 15);

  const double gigabytes = static_cast<double>(pieces << 20) / seconds / 1e9;
  return "ranks: " + std::to_string(size) + " on " + std::to_string(machines) +
         (machines == 1 ? " machine" : " machines") + ", all-reduce " +
         number(gigabytes < 1 ? "%.2f" : "%.1f", gigabytes) + " GB/s (" + std::to_string(pieces) +
         " MiB), " + number("%.0f", latency * 1e6) + " us (8 bytes)";
}

std::string shared_text(Communicator& communicator, std::string text) {
  auto length = static_cast<std::uint64_t>(text.size());
  communicator.broadcast(&length, sizeof length, 0);
  text.resize(static_cast<std::size_t>(length));
  if (length > 0) communicator.broadcast(text.data(), text.size(), 0);
  return text;
}

}  // namespace ftrain
