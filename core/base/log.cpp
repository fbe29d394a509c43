#include "ftrain/base/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>
#include <mutex>
#include <string>

#include "ftrain/base/error.h"

namespace ftrain::log {
namespace {

// The one log of the process.
class Lines {
 public:
  Lines() : screen_(std::make_shared<spdlog::sinks::stderr_sink_st>()) {
    screen_->set_pattern("%v");
  }

  void write(spdlog::level::level_enum level, std::string_view line) {
    const std::scoped_lock lock(mutex_);
    const std::string text = (level >= spdlog::level::warn ? "warning: " : "") + std::string(line);
    if (level >= spdlog::level::warn || !quiet_) {
      // One write of the whole line: ranks that share a screen do not break into each other's.
      put(*screen_, {"ftrain", level, name_ + text});
    }
    if (file_) put(*file_, {"ftrain", level, text});
  }

  void open(const std::filesystem::path& path) {
    const std::scoped_lock lock(mutex_);
    file_.reset();
    if (path.empty()) return;
    try {
      file_ = std::make_shared<spdlog::sinks::basic_file_sink_st>(path.string());
      file_->set_pattern("%Y-%m-%d %H:%M:%S %v");
    } catch (const spdlog::spdlog_ex& error) {
      throw DataError(path.string() + ": cannot be opened for the log: " + error.what());
    }
  }

  void quiet(bool on) {
    const std::scoped_lock lock(mutex_);
    quiet_ = on;
  }

  void speak_as(std::string_view name) {
    const std::scoped_lock lock(mutex_);
    name_ = name.empty() ? "" : std::string(name) + ": ";
  }

 private:
  // A log that cannot be written (a closed terminal, a full disk) never ends a run.
  static void put(spdlog::sinks::sink& sink, const spdlog::details::log_msg& message) {
    try {
      sink.log(message);
      sink.flush();
    } catch (const spdlog::spdlog_ex&) {
    }
  }

  std::mutex mutex_;
  std::shared_ptr<spdlog::sinks::sink> screen_, file_;
  std::string name_;
  bool quiet_ = false;
};

Lines& lines() {
  static Lines instance;
  return instance;
}

}  // namespace

void info(std::string_view line) {
  lines().write(spdlog::level::info, line);
}

void warning(std::string_view line) {
  lines().write(spdlog::level::warn, line);
}

void also_to(const std::filesystem::path& path) {
  lines().open(path);
}

void quiet(bool on) {
  lines().quiet(on);
}

void speak_as(std::string_view name) {
  lines().speak_as(name);
}

}  // namespace ftrain::log
