// This process as a rank of an MPI job: started, waited with, stopped and ended.
//
// MPI is called by one thread at a time: every call is made inside a Turn. Nothing waits inside
// MPI: requests are polled, first at once, then after sleeps that grow with the wait, so that a
// waiting rank leaves its core to whoever computes there. Once stopped, by abort() of any rank or
// by an error of MPI, nothing calls MPI any more: not even its end, which waits for all ranks.
//
// Threads: all of it from any thread. Failure: CommunicationError naming the rank.
#pragma once

#include <mpi.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ftrain/device/communicator.h"

namespace ftrain::mpi {

class World {
 public:
  // Starts MPI unless it runs already. Collective over the job.
  explicit World(const RankPlace& place);
  // The last one of a process ends MPI, if nothing went wrong.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  const RankPlace& place() const { return place_; }
  MPI_Comm everyone() const { return everyone_; }

  // Calls of MPI by this thread alone. Throws when the job was stopped.
  class Turn {
   public:
    explicit Turn(World& world) : lock_(world.mutex_) { world.check_stopped(); }

   private:
    std::unique_lock<std::timed_mutex> lock_;
  };

  // `code` is what `operation` returned.
  void check(int code, const char* operation);
  void check_stopped() const;
  // Until the request is done. Outside a Turn.
  void wait(MPI_Request& request, const char* operation);
  void wait_all(std::vector<MPI_Request>& requests, const char* operation);
  // A part's end. Not when something fails: the other ranks may not come to it.
  void free(MPI_Comm& part);

  // Tells the other ranks, then stops this one.
  void abort(const std::string& reason);
  bool stopped() const { return stopped_.load(std::memory_order_acquire); }

 private:
  static constexpr int longest_reason = 1000;

  void start();
  void compare_place() const;
  void stop(const std::string& text);
  void hear_of_abort();
  void tell_everyone(const std::string& reason);
  [[noreturn]] void fail(const std::string& text);

  RankPlace place_;
  MPI_Comm everyone_ = MPI_COMM_NULL;
  // Carries reasons of aborts and nothing else.
  MPI_Comm alarm_ = MPI_COMM_NULL;
  MPI_Request heard_ = MPI_REQUEST_NULL;
  std::array<char, longest_reason + 1> heard_reason_{};

  std::timed_mutex mutex_;
  std::atomic<bool> stopped_ = false;
  std::string why_;  // written once, before stopped_
  std::mutex why_mutex_;
};

}  // namespace ftrain::mpi
