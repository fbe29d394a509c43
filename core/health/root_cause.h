// What a watcher concludes from what ranks say and from what they no longer say.
//
// Pure: time comes in as seconds of the caller's clock, findings go out as sentences. Private to
// core/health. Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ftrain/plugin/api.h"

namespace ftrain {

// One rank at one moment, as its heartbeats carry it.
struct RankStatus {
  std::int64_t finished = 0;  // collectives that it has done
  std::int64_t notes = 0;     // how often it said what it works on
  bool waiting = false;       // it is in a collective
  std::string operation{};    // the collective that it is in: "all_reduce of 4.2 MiB"
  std::string last{};         // the one that it finished last; empty: none yet
  std::string work{};         // "step 12: reading data"; empty: it never said
};

class FTRAIN_API Judge {
 public:
  // `names`: of each rank, "rank 2 on b (process 4711)". `timeout` of 0: waits for ever.
  Judge(std::vector<std::string> names, double timeout);

  void hear(int rank, RankStatus status, double now);
  // It said that it has done its part.
  void leave(int rank);

  // The sentence for a rank whose connection is gone. `lost`: the network gave it up, it was not
  // closed.
  std::string died(int rank, bool lost, double now) const;
  // The sentence for a rank that has said nothing for too long, if there is one.
  std::optional<std::string> silent(double now) const;
  // What has waited for too long, if anything: stopped ranks, hung ones, a network that hangs.
  std::optional<std::string> overdue(double now) const;

 private:
  struct Rank {
    std::string name;
    RankStatus status;
    bool left = false;
    double heard = 0, changed = 0;
  };
  std::string doing(const Rank& rank, double now) const;
  std::string last_of(const Rank& rank) const;

  std::vector<Rank> ranks_;
  double timeout_;
};

}  // namespace ftrain
