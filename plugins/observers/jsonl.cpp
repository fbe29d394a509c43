// metrics.jsonl and summary.json of the run folder.
//
// A run that was killed may have written lines beyond its last checkpoint: when it continues, they
// are cut off, so that the file reads as if the run had never stopped.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/durable_file.h"
#include "core/train/report.h"
#include "ftrain/base/log.h"
#include "ftrain/observer.h"
#include "ftrain/plugin.h"

namespace {

using namespace ftrain;
namespace fs = std::filesystem;

class JsonLines final : public Observer {
 public:
  ~JsonLines() override {
    if (file_ >= 0) ::close(file_);
  }

  void on_start(const RunInfo& info) override {
    folder_ = info.folder;
    const fs::path path = folder_ / "metrics.jsonl";
    const std::uintmax_t keep = info.first_step > 0 ? sound_bytes(path, info.first_step) : 0;
    file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file_ < 0 || ::ftruncate(file_, static_cast<off_t>(keep)) != 0) {
      warn(path.string() + ": " + std::strerror(errno));
    }
  }

  void on_step(const StepReport& report) override { write(step_json(report)); }

  void on_verification(const VerificationReport& report) override {
    // A finished run that is started again verifies what the file holds already.
    if (report.step == verified_) return;
    verified_ = report.step;
    write(verification_json(report));
  }

  void on_summary(const RunSummary& summary) override {
    try {
      replace_file(folder_ / "summary.json", summary_json(summary));
    } catch (const Error& error) {
      warn(error.what());
    }
  }

 private:
  // The length of the file's beginning with whole lines of steps up to `last`.
  std::uintmax_t sound_bytes(const fs::path& path, std::int64_t last) {
    std::ifstream file(path, std::ios::binary);
    std::uintmax_t bytes = 0;
    for (std::string line; std::getline(file, line) && !file.eof();) {
      const auto json = nlohmann::json::parse(line, nullptr, false);
      if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) break;
      const auto step = json["step"].get<std::int64_t>();
      if (step > last) break;
      if (json.contains("accuracy")) verified_ = step;
      bytes += line.size() + 1;
    }
    return bytes;
  }

  // One write a line, so that a line is in the file as soon as its step is done.
  void write(std::string line) {
    line += '\n';
    const char* next = line.data();
    std::size_t bytes = line.size();
    while (file_ >= 0 && bytes > 0) {
      const ssize_t written = ::write(file_, next, bytes);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) {
        warn((folder_ / "metrics.jsonl").string() + ": " + std::strerror(errno));
        return;
      }
      next += written;
      bytes -= static_cast<std::size_t>(written);
    }
  }

  void warn(const std::string& reason) {
    if (warned_) return;
    warned_ = true;
    log::warning("the run goes on, but its numbers cannot be written: " + reason);
  }

  fs::path folder_;
  int file_ = -1;
  std::int64_t verified_ = -1;  // the step of the last verification in the file
  bool warned_ = false;
};

}  // namespace

FTRAIN_PLUGIN(jsonl, registry) {
  registry.add<ftrain::Observer, JsonLines>(
      "jsonl", "metrics.jsonl and summary.json in the run folder, for programs");
}
