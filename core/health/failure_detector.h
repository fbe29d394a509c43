// The watcher of a rank: the thread behind a WatchedCommunicator.
//
// Private to core/health. Ownership: owns the inner communicator, which the parts of a
// WatchedCommunicator keep alive with it. Threads: the public functions from any, the rest is the
// watcher's own thread. With one rank there is no thread and nothing is watched.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/health/board.h"
#include "core/health/monitor.h"
#include "core/health/rendezvous.h"
#include "core/health/root_cause.h"
#include "ftrain/device/communicator.h"

namespace ftrain {

class Watcher {
 public:
  Watcher(std::unique_ptr<Communicator> inner, const WatchOptions& options);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  Communicator& inner() { return *inner_; }
  // Collectives tell it what they do.
  WatchBoard& board() { return board_; }
  void abort(const std::string& reason);
  // Says goodbye, or that this rank failed; ends the thread.
  void close(bool failing);

 private:
  bool first() const { return rank_ == 0; }
  const std::string& name(int rank) const { return meeting_.names[static_cast<std::size_t>(rank)]; }

  void run();
  void wait();
  void tick();
  void listen(std::size_t index);
  void hear(int rank, std::size_t index, const Frame& frame);
  void report(FrameKind kind, const std::string& text);
  void suspect(int rank, const std::string& text);
  void beat(const RankStatus& status);
  void decide_by_time(bool all);
  void decide(Finding finding);
  int speaker_without_first() const;
  void end_what_does_not_come_back();
  void say_goodbye();

  std::unique_ptr<Communicator> inner_;
  const WatchOptions options_;
  const int rank_;
  WatchBoard board_;
  const double interval_;  // seconds from beat to beat
  Meeting meeting_;
  std::vector<bool> left_;  // by link: said goodbye, or is gone
  Judge judge_;             // on rank 0 of all ranks, on the others of rank 0 and itself
  std::chrono::steady_clock::time_point last_tick_;
  double now_ = 0, next_beat_ = 0, settled_at_ = 0, decided_at_ = 0;
  std::optional<Finding> settling_;
  bool decided_ = false;
  std::thread thread_;
};

}  // namespace ftrain
