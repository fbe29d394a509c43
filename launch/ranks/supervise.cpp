#include "launch/ranks/supervise.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "core/base/durable_file.h"
#include "core/checkpoint/files.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "launch/ranks/child.h"
#include "launch/ranks/communicator_choice.h"
#include "launch/ranks/signals.h"

namespace ftrain::launch {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::duration;
using std::chrono::milliseconds;

constexpr milliseconds shortest_pause{500}, longest_pause{15000};

// Signals end it.
void rest(milliseconds time) {
  for (const auto end = Clock::now() + time; Clock::now() < end && interrupted().load() == 0;) {
    std::this_thread::sleep_for(milliseconds(20));
  }
}

// The files that stand for checkpoints now: `--fresh` is done when none of them is left.
std::set<std::pair<ino_t, std::int64_t>> identities(const fs::path& checkpoints) {
  std::set<std::pair<ino_t, std::int64_t>> found;
  for (const CheckpointEntry& entry : list_checkpoints(checkpoints)) {
    struct stat status {};
    if (::stat((entry.path / "manifest.json").c_str(), &status) == 0) {
      found.emplace(status.st_ino, status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec);
    }
  }
  return found;
}

class Supervisor {
 public:
  explicit Supervisor(const RanksToStart& ranks)
      : ranks_(ranks),
        processes_(static_cast<int>(ranks.settings.processes)),
        hosts_(read_hosts(ranks.settings.hosts, processes_,
                          ranks.job.root().table("launch").place("hosts").text() + ": hosts: ")),
        checkpoints_(ranks.folder / "checkpoints"),
        fresh_(std::count(ranks.words.begin(), ranks.words.end(), "--fresh") > 0) {
    if (fresh_) old_ = identities(checkpoints_);
  }

  int run() {
    watch_signals(Listener::launcher);
    std::int64_t restarts = 0, step_before = -1;
    milliseconds pause = shortest_pause;
    for (;;) {
      const auto hosts = wait_for_hosts();
      if (interrupted().load() != 0) return stopped_code();
      const Ending ending = start(hosts);
      if (ending.stopped) return stopped_code();
      if (ending.code == 0) {
        const bool cut = std::any_of(
            ending.reports.begin(), ending.reports.end(),
            [](const RankReport& r) { return r.what == RankReport::What::interrupted; });
        return cut ? stopped_code() : static_cast<int>(ExitCode::done);
      }
      Verdict verdict = verdict_of(ending);
      if (restarts >= ranks_.settings.max_restarts || !verdict.restartable ||
          interrupted().load() != 0) {
        if (restarts > 0 && verdict.restartable) {
          verdict.complaint.message += "; given up after " + std::to_string(restarts) +
                                       (restarts == 1 ? " restart" : " restarts");
        }
        if (interrupted().load() != 0 && verdict.restartable) {
          verdict.complaint.message +=
              "; it was to stop, and may have ended before the checkpoint was written";
        }
        mark_as_failed();
        print_error(verdict.complaint, verdict.who);
        return verdict.complaint.code;
      }
      ++restarts;
      const std::int64_t step = last_step();
      pause = step > step_before ? shortest_pause : std::min(2 * pause, longest_pause);
      step_before = step;
      log::warning((verdict.who.empty() ? "" : verdict.who + ": ") + verdict.complaint.message);
      log::info("restart " + std::to_string(restarts) + " of " +
                std::to_string(ranks_.settings.max_restarts) +
                (step < 0 ? " from the beginning" : " from step " + std::to_string(step)));
      rest(pause);
    }
  }

 private:
  // What SIGINT or SIGTERM to this process means for its code.
  static int stopped_code() {
    return static_cast<int>(interrupted().load() == SIGINT ? ExitCode::interrupted
                                                           : ExitCode::terminated);
  }

  // Those that take part: hosts that do not answer are left out while there are others for them.
  std::vector<Host> wait_for_hosts() const {
    if (hosts_.empty()) return {};
    const std::string& agent = ranks_.settings.agent;
    // A host may answer and yet not serve: after a failure each is tried by what the ranks need.
    const Question question = started_ ? by_mpirun(find_program("mpirun"), agent) : by_agent(agent);
    const double patience = ranks_.settings.timeout > 0 ? ranks_.settings.timeout : 600;
    const auto begin = Clock::now();
    milliseconds pause(1000);
    bool told = false;
    for (;;) {
      const auto there = answering(hosts_, question, interrupted());
      if (interrupted().load() != 0) return {};
      const std::string absent = names_of_absent(there);
      const auto taken = take(there, processes_);
      if (!taken.empty()) {
        if (!absent.empty()) log::warning(absent + ": no answer; the others have room for all");
        return taken;
      }
      const double waited = duration<double>(Clock::now() - begin).count();
      if (waited > patience) {
        throw CommunicationError(
            "no answer from " + absent + " in " + std::to_string(static_cast<int>(waited)) +
            " s, and " + std::to_string(processes_) + " ranks need room: does `" +
            agent_command(ranks_.settings.agent) + " HOST true` work from here?");
      }
      if (!told) log::warning(absent + ": no answer; waiting for it");
      told = true;
      rest(pause);
      pause = std::min(2 * pause, longest_pause);
    }
  }

  std::string names_of_absent(const std::vector<Host>& there) const {
    std::string names;
    for (const Host& host : hosts_) {
      const bool is_there = std::any_of(there.begin(), there.end(),
                                        [&](const Host& one) { return one.name == host.name; });
      if (!is_there) names += (names.empty() ? "" : ", ") + host.name;
    }
    return names;
  }

  Ending start(const std::vector<Host>& hosts) {
    // A restart goes on from what the run has saved since; before that it is as the first one.
    if (fresh_) {
      const auto now = identities(checkpoints_);
      const bool untouched =
          std::any_of(now.begin(), now.end(), [&](const auto& one) { return old_.count(one) > 0; });
      if (started_ && !untouched) fresh_ = false;
    }
    std::vector<std::string> words{"run"};
    for (const std::string& word : ranks_.words) {
      if (fresh_ || word != "--fresh") words.push_back(word);
    }
    started_ = true;
    return run_mpirun({.mpirun = find_program("mpirun"),
                       .processes = processes_,
                       .hosts = hosts,
                       .agent = ranks_.settings.agent,
                       .patience = std::max(ranks_.settings.timeout, 60.0),
                       .meets = ranks_.communicator == "tcp",
                       .words = words});
  }

  // The summary of a run whose first rank had no time to write what became of it.
  void mark_as_failed() const {
    const fs::path path = ranks_.folder / "summary.json";
    std::ifstream file(path);
    if (!file || !started_) return;
    auto summary = nlohmann::ordered_json::parse(file, nullptr, false);
    if (!summary.is_object() || summary.value("state", "") != "running") return;
    summary["state"] = "failed";
    try {
      replace_file(path, summary.dump(2) + "\n");
    } catch (const DataError& error) {
      log::warning(error.what());
    }
  }

  // Of the newest checkpoint; -1: there is none.
  std::int64_t last_step() const {
    if (fresh_ && old_.empty() == false && identities(checkpoints_) == old_) return -1;
    const auto latest = latest_checkpoint(checkpoints_);
    return latest ? latest->step : -1;
  }

  const RanksToStart& ranks_;
  const int processes_;
  const std::vector<Host> hosts_;
  const fs::path checkpoints_;
  bool fresh_, started_ = false;
  std::set<std::pair<ino_t, std::int64_t>> old_;
};

}  // namespace

std::string choose_communicator(const LaunchSettings& settings, const Registry& registry) {
  return choose_to_start(settings, !find_program("mpirun").empty(),
                         [&](const std::string& name) { return has_plugin(registry, name); });
}

int supervise(const RanksToStart& ranks) {
  return Supervisor(ranks).run();
}

}  // namespace ftrain::launch
