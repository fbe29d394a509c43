// What the threads of a rank and its watcher have to tell each other.
//
// Private to core/health. Threads: every function from any thread; a short lock each, but for
// failed() and abort(), which wait for the watcher.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "core/health/root_cause.h"
#include "ftrain/base/error.h"
#include "ftrain/device/communicator.h"

namespace ftrain {

// Why the job is over.
struct Finding {
  std::string text;
  int culprit = -1;  // the rank that failed and knows why; -1: one that cannot speak any more
  int speaker = 0;   // the rank whose user is told
};

class WatchBoard {
 public:
  explicit WatchBoard(int rank);
  ~WatchBoard();
  WatchBoard(const WatchBoard&) = delete;
  WatchBoard& operator=(const WatchBoard&) = delete;

  // Around a collective. begin() throws when the job is over.
  void begin(const char* operation, std::int64_t bytes);
  void end();
  void leave();  // it threw
  // While the error of a collective is handled: throws what this rank is to say of it.
  [[noreturn]] void failed(const CommunicationError& error);
  // Returns once the others have been told; false when the job was over before.
  bool abort(const std::string& reason);
  void working_on(const Work& work);
  void close(bool failing);

  // For the watcher. What it can poll for: something was written here.
  int wake_socket() const { return wake_; }
  RankStatus status();
  struct Requests {
    bool close = false;
    std::optional<std::string> trouble, failure;
  };
  Requests take();
  // The failure that was asked for is told.
  void sent();
  // Ends this rank's collectives; false when its own failure has done so.
  bool publish(const Finding& finding);
  struct Known {
    Finding finding;
    bool told = false;  // some thread of this rank has thrown it
  };
  std::optional<Known> known();
  void ended();

 private:
  void wake();
  [[noreturn]] void raise();  // with the lock held

  const int rank_, wake_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const char* operation_ = nullptr;
  const char* last_operation_ = nullptr;
  std::int64_t bytes_ = 0, last_bytes_ = 0, finished_ = 0, notes_ = 0;
  Work work_;
  bool waiting_ = false, told_ = false, close_ = false, sent_ = false, ended_ = false;
  std::optional<std::string> trouble_, failure_;
  std::optional<Finding> finding_;
};

}  // namespace ftrain
