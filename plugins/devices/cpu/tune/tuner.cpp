#include "plugins/devices/cpu/tune/tuner.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <mutex>
#include <set>

#include "core/base/durable_file.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/device/memory.h"
#include "plugins/devices/cpu/tune/measure.h"

namespace ftrain::cpu {
namespace {

constexpr int plain_below = 10;  // see kernels.h: plain loops are not worth measuring

// What the process knows, whichever program or rank asked.
struct Shared {
  std::mutex mutex;  // of what follows
  std::map<std::pair<std::filesystem::path, Circumstances>, Answers> answers;
  std::set<std::string> warned;
  std::mutex measuring;  // held by the one that measures; before `mutex`
};

Shared& shared() {
  static Shared instance;
  return instance;
}

void warn_once(const std::string& line) {
  Shared& all = shared();
  const std::lock_guard lock(all.mutex);
  if (all.warned.insert(line).second) log::warning(line);
}

std::size_t available_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string word;
  while (file >> word) {
    std::size_t kib = 0;
    if (word == "MemAvailable:" && file >> kib) return kib << 10;
  }
  return 0;
}

bool suits(const Answer& answer, const std::vector<const KernelDef*>& candidates) {
  const auto asked = [&](std::string_view name) {
    return std::any_of(candidates.begin(), candidates.end(),
                       [&](const KernelDef* def) { return def->name == name; });
  };
  return answer.seconds.size() == candidates.size() && asked(answer.kernel) &&
         std::all_of(answer.seconds.begin(), answer.seconds.end(),
                     [&](const auto& entry) { return asked(entry.first); });
}

}  // namespace

struct Tuner::Session {
  explicit Session(const std::filesystem::path& path) : measuring(shared().measuring), file(path) {
    if (file.empty()) return;
    lock = std::make_unique<FileLock>(file);
    if (lock->failure() != 0) {
      warn_once("measured kernels are not kept: " + file.string() + ": " +
                std::generic_category().message(lock->failure()) +
                "; set FTRAIN_CACHE to a folder that can be written");
    }
  }

  std::unique_lock<std::mutex> measuring;
  std::filesystem::path file;
  std::unique_ptr<FileLock> lock;
  Answers fresh;  // measured here
  Workbench bench;
  double seconds = 0;
};

Tuner::Tuner(const KernelList& kernels, const KernelEnvironment& environment,
             const Answers& repeated)
    : kernels_(kernels),
      environment_(environment),
      repeated_(repeated),
      circumstances_(circumstances_of(environment)) {}

Tuner::~Tuner() {
  if (!session_ || session_->fresh.empty()) return;
  const std::filesystem::path& file = session_->file;
  const std::size_t count = session_->fresh.size();
  char line[96];
  std::snprintf(line, sizeof line, "kernels measured in %.1f s: %zu distinct problem%s",
                session_->seconds, count, count == 1 ? "" : "s");
  log::info(line);
  if (file.empty() || session_->lock->failure() != 0) return;
  try {
    std::string text;
    try {
      text = text_of(session_->fresh, circumstances_, content_of(file));
    } catch (const std::exception&) {  // damaged, as was said when it was read: begun anew
      text = text_of(session_->fresh, circumstances_);
    }
    replace_file(file, text);
  } catch (const std::exception& error) {
    warn_once(std::string("measured kernels are not kept: ") + error.what());
  }
}

const Answer* Tuner::known(const std::string& problem,
                           const std::vector<const KernelDef*>& candidates) {
  if (const auto at = used_.find(problem); at != used_.end()) return &at->second;
  const auto take = [&](const Answers& answers) -> const Answer* {
    const auto at = answers.find(problem);
    if (at == answers.end() || !suits(at->second, candidates)) return nullptr;
    return &(used_[problem] = at->second);
  };
  if (const Answer* answer = take(repeated_)) return answer;
  Shared& all = shared();
  const std::filesystem::path file = answers_file();
  {
    const std::lock_guard lock(all.mutex);
    if (const Answer* answer = take(all.answers[{file, circumstances_}])) return answer;
  }
  if (session_) return nullptr;
  // From here on nobody else measures; what others found meanwhile counts.
  session_ = std::make_unique<Session>(file);
  Answers kept;
  try {
    kept = answers_in(content_of(file), circumstances_);
  } catch (const std::exception& error) {
    warn_once(file.string() + " " + error.what() + "; kernels are measured anew");
  }
  const std::lock_guard lock(all.mutex);
  Answers& answers = all.answers[{file, circumstances_}];
  for (auto& [name, answer] : kept) {
    // An answer about other candidates makes room for one about these.
    if (name == problem && suits(answer, candidates)) answers.insert_or_assign(name, answer);
    answers.try_emplace(name, std::move(answer));
  }
  return take(answers);
}

KernelChoice Tuner::choose(const Node& node) {
  if (!node.op->tunable) return kernels_.choose(node, environment_);
  KernelChoice choice;
  std::vector<const KernelDef*> candidates;
  for (const KernelDef* def : kernels_.of(node.op->name)) {
    if (def->priority < plain_below) continue;
    std::string reason = def->refuse ? def->refuse(node, environment_) : std::string();
    if (reason.empty())
      candidates.push_back(def);
    else
      choice.refused.emplace_back(def->name, std::move(reason));
  }
  if (candidates.size() < 2) return kernels_.choose(node, environment_);

  const std::string problem = problem_of(node);
  const Answer* answer = known(problem, candidates);
  if (answer == nullptr) {
    // The operands, and as much again for scratch.
    if (2 * operand_bytes(node) > available_bytes()) return kernels_.choose(node, environment_);
    const auto start = std::chrono::steady_clock::now();
    const std::vector<Timing> timings =
        measure(node, candidates, environment_, session_->bench, choice.refused);
    session_->seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (timings.empty()) return kernels_.choose(node, environment_);
    Answer fresh{std::string(winner(timings)->name), {}};
    for (const Timing& timing : timings)
      fresh.seconds.emplace_back(timing.def->name, timing.seconds);
    if (timings.size() == candidates.size()) {  // who threw is tried again another time
      session_->fresh[problem] = fresh;
      const std::lock_guard lock(shared().mutex);
      shared().answers[{session_->file, circumstances_}].insert_or_assign(problem, fresh);
    }
    answer = &(used_[problem] = std::move(fresh));
  }

  for (const KernelDef* def : candidates) {
    if (def->name == answer->kernel) choice.def = def;
  }
  choice.measured = answer->seconds;
  std::stable_sort(choice.measured.begin(), choice.measured.end(),
                   [&](const auto& a, const auto& b) {
                     const bool first = a.first == answer->kernel;
                     const bool second = b.first == answer->kernel;
                     return first != second ? first : a.second < b.second;
                   });
  return choice;
}

}  // namespace ftrain::cpu
