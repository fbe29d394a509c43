#include "plugins/devices/cuda/device/plan_cache.h"

#include <system_error>
#include <utility>

#include "core/base/durable_file.h"
#include "ftrain/base/log.h"

namespace ftrain::cuda {

PlanCache::PlanCache(std::filesystem::path file, Circumstances circumstances, std::string what)
    : file_(std::move(file)), circumstances_(std::move(circumstances)), what_(std::move(what)) {}

void PlanCache::warn(const std::string& line) const {
  if (!std::exchange(warned_, true)) log::warning(line);
}

Answers PlanCache::read_file() const {
  try {
    return answers_in(content_of(file_), circumstances_);
  } catch (const std::exception& error) {
    warn(file_.string() + " " + error.what() + "; " + what_ + " are measured anew");
    return {};
  }
}

void PlanCache::add_to_file(const std::string& problem, const Answer& answer) const {
  const Answers one{{problem, answer}};
  try {
    std::string text;
    try {
      text = text_of(one, circumstances_, content_of(file_));
    } catch (const std::exception& error) {  // what was read of it was no more than that
      warn(file_.string() + " " + error.what() + "; " + what_ + " are measured anew");
      text = text_of(one, circumstances_);
    }
    replace_file(file_, text);
  } catch (const std::exception& error) {
    warn("measured " + what_ + " are not kept: " + error.what());
  }
}

const Answer& PlanCache::answer(const std::string& problem,
                                const std::function<Measured()>& measure,
                                const std::function<bool(const Answer&)>& suits) {
  if (const auto at = used_.find(problem); at != used_.end()) return at->second;
  const auto take = [&](const Answers& answers) -> const Answer* {
    const auto at = answers.find(problem);
    if (at == answers.end() || (suits && !suits(at->second))) return nullptr;
    return &(used_[problem] = at->second);
  };
  if (const Answer* answer = take(repeated_)) return *answer;
  if (file_.empty()) return used_[problem] = measure().answer;
  if (!std::exchange(read_, true)) known_ = read_file();
  if (const Answer* answer = take(known_)) return *answer;

  const FileLock lock(file_);
  if (lock.failure() != 0) {
    warn("measured " + what_ + " are not kept: " + file_.string() + ": " +
         std::generic_category().message(lock.failure()) +
         "; set FTRAIN_CACHE to a folder that can be written");
    return used_[problem] = measure().answer;
  }
  // What others found meanwhile counts.
  known_ = read_file();
  if (const Answer* answer = take(known_)) return *answer;
  Measured measured = measure();
  if (measured.lasting) add_to_file(problem, measured.answer);
  return used_[problem] = std::move(measured.answer);
}

std::string PlanCache::used() const {
  return used_.empty() ? "" : text_of(used_, circumstances_);
}

void PlanCache::repeat(std::string_view text) {
  repeated_ = answers_in(text, circumstances_);
}

}  // namespace ftrain::cuda
