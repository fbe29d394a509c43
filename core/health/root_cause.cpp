#include "core/health/root_cause.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ftrain {
namespace {

// "12 s"; "0.5 s" below ten.
std::string seconds_text(double seconds) {
  const double tenths = std::round(seconds * 10);
  if (tenths >= 100) return std::to_string(static_cast<std::int64_t>(std::round(seconds))) + " s";
  const auto whole = static_cast<std::int64_t>(tenths);
  std::string text = std::to_string(whole / 10);
  if (whole % 10 != 0) text += "." + std::to_string(whole % 10);
  return text + " s";
}

}  // namespace

Judge::Judge(std::vector<std::string> names, double timeout) : timeout_(timeout) {
  for (std::string& name : names) ranks_.push_back({.name = std::move(name), .status = {}});
}

void Judge::hear(int rank, RankStatus status, double now) {
  Rank& known = ranks_[static_cast<std::size_t>(rank)];
  known.heard = now;
  const RankStatus& before = known.status;
  const bool same = status.finished == before.finished && status.notes == before.notes &&
                    status.waiting == before.waiting && status.operation == before.operation;
  if (!same) known.changed = now;
  known.status = std::move(status);
}

void Judge::leave(int rank) {
  ranks_[static_cast<std::size_t>(rank)].left = true;
}

// "in all_reduce of 4.2 MiB for 3 s ("step 12: backward")".
std::string Judge::doing(const Rank& rank, double now) const {
  const RankStatus& status = rank.status;
  if (!status.waiting) {
    return status.work.empty() ? "in no collective" : "at \"" + status.work + "\"";
  }
  std::string text = "in " + status.operation + " for " + seconds_text(now - rank.changed);
  if (!status.work.empty()) text += " (\"" + status.work + "\")";
  return text;
}

std::string Judge::last_of(const Rank& rank) const {
  if (rank.status.last.empty()) return "it had finished no collective yet";
  return "the last operation that it finished was collective " +
         std::to_string(rank.status.finished) + ", " + rank.status.last;
}

std::string Judge::died(int rank, bool lost, double now) const {
  const Rank& gone = ranks_[static_cast<std::size_t>(rank)];
  return gone.name +
         (lost ? " can no longer be reached (its machine or the network to it is gone)"
               : " ended without a word (killed, crashed or out of memory)") +
         "; it was " + doing(gone, now) + "; " + last_of(gone);
}

std::optional<std::string> Judge::silent(double now) const {
  if (timeout_ <= 0) return {};
  for (const Rank& rank : ranks_) {
    if (rank.left || now - rank.heard <= timeout_) continue;
    return rank.name + " has not been heard of for " + seconds_text(now - rank.heard) +
           " (it is stopped, or its machine is gone); it was " + doing(rank, rank.heard) + "; " +
           last_of(rank);
  }
  return {};
}

std::optional<std::string> Judge::overdue(double now) const {
  if (timeout_ <= 0) return {};
  if (auto found = silent(now)) return found;
  const Rank* waiter = nullptr;  // the one that waits the longest
  for (const Rank& rank : ranks_) {
    if (rank.left) continue;
    if (!rank.status.waiting || now - rank.changed <= timeout_) continue;
    if (waiter == nullptr || rank.changed < waiter->changed) waiter = &rank;
  }
  if (waiter == nullptr) return {};

  const std::string wait = waiter->status.operation + " for " + seconds_text(now - waiter->changed);
  for (const Rank& rank : ranks_) {
    if (rank.left && rank.status.finished <= waiter->status.finished) {
      return rank.name + " has ended its part while " + waiter->name + " waits in " + wait + "; " +
             last_of(rank);
    }
  }
  const auto ends = std::minmax_element(
      ranks_.begin(), ranks_.end(),
      [](const Rank& a, const Rank& b) { return a.status.finished < b.status.finished; });
  const Rank* late = nullptr;
  for (const Rank& rank : ranks_) {
    if (rank.left) continue;
    if (now - rank.changed <= timeout_) return {};  // something moves still
    if (!rank.status.waiting && late == nullptr) late = &rank;
  }
  if (late == nullptr && ends.first->status.finished < ends.second->status.finished) {
    late = &*ends.first;
  }
  if (late != nullptr) {
    return late->name + " keeps the others waiting: " + waiter->name + " is in " + wait + ", " +
           "and it is " + doing(*late, now) + "; " + last_of(*late);
  }
  for (const Rank& rank : ranks_) {
    if (!rank.left && rank.status.operation != waiter->status.operation) {
      return "the ranks wait for each other in different operations: " + waiter->name + " in " +
             wait + ", " + rank.name + " in " + rank.status.operation + "; " + last_of(*waiter);
    }
  }
  return "all ranks wait in " + wait + " and nothing arrives (a network that no longer carries " +
         "data between the ranks?); " + last_of(*waiter);
}

}  // namespace ftrain
