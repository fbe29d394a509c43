#include "core/base/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>
#include <mutex>
#include <string>

#include "core/base/error.h"

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
    const spdlog::details::log_msg message("ftrain", level, {line.data(), line.size()});
    if (level >= spdlog::level::warn || !quiet_) put(*screen_, message);
    if (file_) put(*file_, message);
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
  lines().write(spdlog::level::warn, "warning: " + std::string(line));
}

void also_to(const std::filesystem::path& path) {
  lines().open(path);
}

void quiet(bool on) {
  lines().quiet(on);
}

}  // namespace ftrain::log
