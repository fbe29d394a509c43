// How a run goes, for people: one line that is rewritten in a terminal, a line now and then in a
// log. What stays to be read (verifications, checkpoints, the end) goes through the log.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "ftrain/base/log.h"
#include "ftrain/observer.h"
#include "ftrain/plugin.h"

namespace {

using namespace ftrain;
using Clock = std::chrono::steady_clock;

// How much one step moves the shown means.
constexpr double smoothing = 0.05;
// A terminal's line is rewritten no more often than this.
constexpr std::chrono::milliseconds blink{100};

template <class... Values>
std::string print(const char* format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

std::string duration(double seconds) {
  const auto s = static_cast<long long>(std::llround(std::max(0.0, seconds)));
  if (s < 60) return print("%llds", s);
  if (s < 3600) return print("%lldm%02llds", s / 60, s % 60);
  if (s < 86400) return print("%lldh%02lldm", s / 3600, s / 60 % 60);
  return print("%lldd%02lldh", s / 86400, s / 3600 % 24);
}

// A mean that forgets, exact from its first value on.
struct Mean {
  double sum = 0, weight = 0;
  void add(double value) {
    if (!std::isfinite(value)) return;
    sum += smoothing * (value - sum);
    weight += smoothing * (1 - weight);
  }
  double value() const { return weight > 0 ? sum / weight : std::nan(""); }
};

class Console final : public Observer {
 public:
  void configure(Keys& keys) override {
    keys.bind("style", style_,
              "line: one line, rewritten; log: a line now and then; auto: line in a terminal",
              one_of({"auto", "line", "log"}));
    keys.bind("every_seconds", every_seconds_, "between the lines of a log", above(0));
  }

  void on_start(const RunInfo& info) override {
    info_ = info;
    // Ranks write to `ftrain run`, which says whether a terminal is behind it.
    const bool terminal = ::isatty(STDERR_FILENO) == 1 || std::getenv("FTRAIN_TERMINAL") != nullptr;
    rewrites_ = style_ == "line" || (style_ == "auto" && terminal);
  }

  void on_step(const StepReport& report) override {
    loss_.add(report.loss);
    wait_.add(report.data_wait);
    if (report.samples_per_second > 0) step_seconds_.add(1 / report.samples_per_second);
    const auto now = Clock::now();
    const bool first = !shown_;
    const auto since = first ? Clock::duration::zero() : now - *shown_;
    const bool last = report.step == info_.steps;
    if (rewrites_) {
      if (!first && !last && since < blink) return;
      std::fprintf(stderr, "\r\033[K%s", line(report).c_str());
      std::fflush(stderr);
      open_line_ = true;
    } else {
      if (!first && !last && since < std::chrono::duration<double>(every_seconds_)) return;
      log::info(line(report));
    }
    shown_ = now;
  }

  void on_verification(const VerificationReport& report) override {
    for (const auto& [set, accuracy] : report.accuracy) {
      std::string text = print("verified at step %lld: ", static_cast<long long>(report.step)) +
                         set + ": " + words(accuracy);
      for (const auto& [rate, tar] : accuracy.tar) {
        text += print(", TAR@FAR %s %.4f", rate.c_str(), tar);
      }
      for (const auto& [name, value] : accuracy.metrics) text += ", " + named(name, value);
      say(text);
    }
  }

  void on_checkpoint(std::int64_t step, const std::filesystem::path& path) override {
    say(print("checkpoint at step %lld: ", static_cast<long long>(step)) + path.string());
  }

  void on_summary(const RunSummary& summary) override {
    if (summary.state == "running") return;
    say(summary.name + ": " + summary.state +
        print(" after %lld steps (%.2f epochs), %s", static_cast<long long>(summary.steps),
              summary.epochs, duration(summary.seconds).c_str()));
    for (const auto& [set, accuracy] : summary.accuracy) {
      say("accuracy on " + set + ": " + words(accuracy));
    }
    if (summary.best) {
      say(print("best %.4f at step %lld", *summary.best,
                static_cast<long long>(summary.best_step)));
    }
    say(print("speed: %.1f samples/s, %.0f%% of the time waiting for data, peak memory %zu MiB",
              summary.samples_per_second, 100 * summary.data_wait,
              summary.peak_memory_bytes >> 20));
    if (summary.skipped_steps > 0 || summary.skipped_samples > 0) {
      say(print("skipped: %lld steps that were not finite, %lld samples that cannot be decoded",
                static_cast<long long>(summary.skipped_steps),
                static_cast<long long>(summary.skipped_samples)));
    }
    say("run folder: " + info_.folder.string());
  }

 private:
  std::string line(const StepReport& report) const {
    const double step_seconds = step_seconds_.value() * static_cast<double>(info_.global_batch);
    std::string text =
        print("step %lld/%lld  epoch %.2f  loss %.4f", static_cast<long long>(report.step),
              static_cast<long long>(info_.steps), report.epoch, loss_.value());
    for (const NamedValue& metric : report.metrics) text += "  " + named(metric.name, metric.value);
    return text +
           print("  %.1f samples/s  eta %s  data wait %.0f%%", 1 / step_seconds_.value(),
                 duration(static_cast<double>(info_.steps - report.step) * step_seconds).c_str(),
                 100 * wait_.value());
  }

  static std::string named(const std::string& name, double value) {
    return name + print(" %.4g", value);
  }

  static std::string words(const Accuracy& a) {
    return print("%.4f +- %.4f, threshold %.3f", a.mean, a.deviation, a.threshold) +
           (std::isnan(a.xnorm) ? "" : print(", norm %.2f", a.xnorm));
  }

  // A line that stays. The rewritten one ends where it is.
  void say(const std::string& text) {
    if (open_line_) std::fputc('\n', stderr);
    open_line_ = false;
    log::info(text);
  }

  std::string style_ = "auto";
  double every_seconds_ = 10;
  RunInfo info_;
  bool rewrites_ = false, open_line_ = false;
  std::optional<Clock::time_point> shown_;
  Mean loss_, wait_, step_seconds_;
};

}  // namespace

FTRAIN_PLUGIN(console, registry) {
  registry.add<ftrain::Observer, Console>("console", "the progress line, for people");
}
