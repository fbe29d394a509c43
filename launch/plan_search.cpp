#include "launch/plan_search.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <utility>
#include <variant>

#include "ftrain/base/error.h"
#include "launch/command_line.h"

namespace ftrain::launch {
namespace {

class Search {
 public:
  Search(const Job& job, const Job& draft, Registry& registry, Quantity quantity,
         std::size_t budget)
      : job_(job), draft_(draft), registry_(registry), quantity_(quantity), budget_(budget) {}

  Largest run() {
    const StepPlan smallest(draft_, registry_, variant(step_of_batch()));
    process_ = smallest.memory.process;
    peaks_[1] = smallest.memory.machine();
    if (peaks_[1] > budget_) {
      throw DeviceError("not even " + name(1) + " fits: a step of it needs " +
                        memory_text(peaks_[1]) + ", there are " + memory_text(budget_) +
                        "; choose a smaller network, or give more with --memory");
    }
    const std::int64_t found = bisect();
    const std::size_t planned = StepPlan(job_, registry_, variant(found * unit_)).memory.machine();
    // The measured kernels may need more scratch than those of the fixed order: then the search
    // goes on with that much less.
    const std::size_t more = planned - std::min(planned, peak(found));
    if (more == 0) return {found * unit_, planned, budget_};
    const std::size_t budget = std::exchange(budget_, budget_ - std::min(budget_, more));
    const std::int64_t fits = peaks_[1] > budget_ ? 1 : bisect();
    return {fits * unit_, peak(fits) + more, budget};
  }

 private:
  // Batches come in whole groups of batch norm; the first assembly says how large one is.
  std::int64_t step_of_batch() {
    if (quantity_ == Quantity::batch) {
      const Assembly assembly(draft_, registry_);
      if (const auto* samples = std::get_if<std::int64_t>(&assembly.parallelism->batch_norm)) {
        unit_ = *samples;
      }
    }
    return unit_;
  }

  PlanVariant variant(std::int64_t value) const {
    PlanVariant v;
    (quantity_ == Quantity::batch ? v.batch : v.classes) = value;
    v.process = process_;
    return v;
  }

  std::string name(std::int64_t count) const {
    const std::int64_t value = count * unit_;
    return "a step of " + std::to_string(value) +
           (quantity_ == Quantity::batch ? value == 1 ? " sample" : " samples"
            : value == 1                 ? " class"
                                         : " classes");
  }

  std::size_t peak(std::int64_t count) {
    const auto known = peaks_.find(count);
    if (known != peaks_.end()) return known->second;
    const std::size_t bytes = StepPlan(draft_, registry_, variant(count * unit_)).memory.machine();
    return peaks_[count] = bytes;
  }

  // Memory is nearly a straight line in either quantity, so the line through two plans meets the
  // border in a few steps; the middle is taken where that stalls. Batches are found exactly,
  // classes to a thousandth.
  std::int64_t bisect() {
    std::int64_t fits = 1, too_much = most_, last = 1, next = 16;
    for (int turn = 0;; ++turn) {
      (peak(next) <= budget_ ? fits : too_much) = next;
      if (too_much - fits <= std::max<std::int64_t>(1, fits / 1000)) return fits;
      const double rise = static_cast<double>(peak(next)) - static_cast<double>(peak(last));
      const double room = static_cast<double>(budget_) - static_cast<double>(peak(next));
      const double guess =
          turn < 8 && rise != 0
              ? static_cast<double>(next) + room / rise * static_cast<double>(next - last)
              : 0.5 * (static_cast<double>(fits) + static_cast<double>(too_much));
      last = next;
      next = static_cast<std::int64_t>(
          std::clamp(guess, static_cast<double>(fits + 1), static_cast<double>(too_much - 1)));
    }
  }

  static constexpr std::int64_t most_ = std::int64_t{1} << 31;
  const Job& job_;
  const Job& draft_;
  Registry& registry_;
  Quantity quantity_;
  std::size_t budget_;
  std::int64_t unit_ = 1;
  std::optional<std::size_t> process_;
  std::map<std::int64_t, std::size_t> peaks_;  // by units
};

}  // namespace

Largest largest(const Job& job, const Job& draft, Registry& registry, Quantity quantity,
                std::size_t budget) {
  return Search(job, draft, registry, quantity, budget).run();
}

std::size_t bytes_of(const std::string& text) {
  double amount = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, amount);
  std::string unit(parsed.ptr, end);
  std::erase(unit, ' ');
  const std::map<std::string, double> units{
      {"", 1},         {"B", 1},    {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
      {"TiB", 0x1p40}, {"KB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};
  const auto factor = units.find(unit);
  if (parsed.ec != std::errc() || factor == units.end() || amount <= 0) {
    throw ConfigError("--memory " + text +
                      ": an amount of memory is a number with a unit, as in 16GiB or 900MiB");
  }
  return static_cast<std::size_t>(amount * factor->second);
}

}  // namespace ftrain::launch
