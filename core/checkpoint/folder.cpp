// The folder that holds a run's checkpoints: finding, pruning, cleaning, marking the best.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/base/durable_file.h"
#include "core/checkpoint/files.h"
#include "ftrain/base/error.h"
#include "ftrain/base/mapped_file.h"

namespace ftrain {
namespace {

// The step of "step-00001000"; empty for any other name.
std::optional<std::int64_t> step_of(std::string_view name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  std::int64_t step = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0 || name.size() < 8)
    return std::nullopt;
  return step;
}

bool is_leftover(std::string_view name) {
  constexpr std::string_view suffix = ".tmp";
  if (name == ".best.json.tmp") return true;
  if (!name.starts_with('.') || !name.ends_with(suffix)) return false;
  return step_of(name.substr(1, name.size() - 1 - suffix.size())).has_value();
}

std::vector<std::filesystem::path> entries(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> result;
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) return result;
  std::filesystem::directory_iterator it(folder, error);
  if (error) throw DataError(folder.string() + ": cannot list the folder: " + error.message());
  for (const auto& entry : it) result.push_back(entry.path());
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace

std::vector<CheckpointEntry> list_checkpoints(const std::filesystem::path& folder) {
  std::vector<CheckpointEntry> result;
  for (const auto& path : entries(folder))
    if (const auto step = step_of(path.filename().string())) result.push_back({*step, path});
  std::sort(result.begin(), result.end(),
            [](const auto& a, const auto& b) { return a.step < b.step; });
  return result;
}

std::optional<CheckpointEntry> latest_checkpoint(const std::filesystem::path& folder,
                                                 std::vector<std::string>* refused) {
  const auto all = list_checkpoints(folder);
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    try {
      const CheckpointReader reader(it->path);
      return *it;
    } catch (const DataError& error) {
      if (refused) refused->push_back(error.what());
    }
  }
  return std::nullopt;
}

std::vector<std::filesystem::path> prune_checkpoints(const std::filesystem::path& folder,
                                                     std::int64_t keep,
                                                     std::optional<std::int64_t> best_step) {
  std::vector<std::filesystem::path> removed;
  const auto all = list_checkpoints(folder);
  std::int64_t sound = 0;
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    try {
      const CheckpointReader reader(it->path);
    } catch (const DataError&) {
      continue;
    }
    if (++sound <= std::max<std::int64_t>(keep, 1) || it->step == best_step) continue;
    // Hidden first: a run killed in the middle of the removal leaves no half checkpoint in sight.
    const auto hidden = folder / hidden_name(it->path.filename().string());
    std::error_code error;
    std::filesystem::remove_all(hidden, error);
    std::filesystem::rename(it->path, hidden, error);
    if (!error) std::filesystem::remove_all(hidden, error);
    if (error) throw_write_error(it->path, "remove the old checkpoint", error.value());
    removed.push_back(it->path);
  }
  return removed;
}

std::vector<std::filesystem::path> remove_leftovers(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> removed;
  for (const auto& path : entries(folder)) {
    if (!is_leftover(path.filename().string())) continue;
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) throw_write_error(path, "remove what a killed run left", error.value());
    removed.push_back(path);
  }
  return removed;
}

std::optional<BestCheckpoint> best_checkpoint(const std::filesystem::path& folder) {
  const auto path = folder / "best.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  const MappedFile file(path);
  const auto bytes = file.bytes();
  try {
    const auto json = nlohmann::json::parse(bytes.begin(), bytes.end());
    return BestCheckpoint{json.at("step").get<std::int64_t>(), json.at("accuracy").get<double>()};
  } catch (const nlohmann::json::exception& problem) {
    throw DataError(path.string() + ": is damaged: " + problem.what() +
                    "; remove it to start the search for the best anew");
  }
}

void mark_best_checkpoint(const std::filesystem::path& folder, const BestCheckpoint& best) {
  const nlohmann::ordered_json json = {{"step", best.step}, {"accuracy", best.accuracy}};
  replace_file(folder / "best.json", json.dump() + "\n");
}

}  // namespace ftrain
