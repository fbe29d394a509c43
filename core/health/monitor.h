// Watches over the ranks of a job that are processes of their own.
//
// A WatchedCommunicator stands before another one and tells every rank's watcher what the rank
// does: which collective it is in, what it is working on. Ranks keep a connection to rank 0 beside
// the communicator's own ways and say every second that they live. Rank 0 finds
//   - a rank whose connection ended without a goodbye: killed, or its machine is gone;
//   - a rank that has not been heard of, or that keeps the others waiting, for `timeout` seconds;
//   - a rank that failed and said why: its call of abort().
// and tells all ranks, whose collectives then end with a PeerError that names the rank, the reason,
// and the last thing that it finished. A rank that does not come back from what it does within
// `grace` seconds after that is ended where it stands with the exit code of a communication
// failure.
//
// Who tells the user, so that one line is read: a rank that failed says so itself, from the error
// that it threw. For a rank that cannot speak any more, because it died or hangs, rank 0 does:
// there the error is a plain CommunicationError with the finding, on all others a PeerError with
// the same text. When rank 0 itself is gone, one other rank has the CommunicationError. A rank
// whose main thread does not come back within `grace` to throw it has it printed by its watcher.
//
// Ownership: owns the communicator before which it stands. Threads: one of its own on each rank,
// none with one rank. Failure: CommunicationError when ranks cannot reach rank 0.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ftrain/device/communicator.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

class Watcher;

struct WatchOptions {
  double timeout = 600;  // seconds; 0: hung ranks are waited for
  double grace = 10;     // seconds
};

class FTRAIN_API WatchedCommunicator final : public Communicator {
 public:
  // `inner` is connected. Collective.
  WatchedCommunicator(std::unique_ptr<Communicator> inner, const WatchOptions& options);
  // Says goodbye: from now on the end of this rank is no failure. While an exception of this rank
  // ends its scope, that is told to the others as abort() would.
  ~WatchedCommunicator() override;

  void connect(const RankPlace&) override;  // CommunicationError: it is connected
  int rank() const override;
  int size() const override;
  const RankPlace& place() const override;
  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) override;
  void all_gather(const void* in, void* out, std::size_t bytes) override;
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) override;
  void broadcast(void* data, std::size_t bytes, int root) override;
  void barrier() override;
  // The part is not watched by itself: its collectives count as the whole's. It may outlive this.
  std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(const std::string& reason) override;
  // What is only enqueued is not seen; the wait for it is, as a collective.
  DeviceCollectives* device_collectives() override;
  void working_on(const Work& work) override;

 private:
  class Part;
  class OnDevice;
  std::shared_ptr<Watcher> watcher_;
  std::unique_ptr<OnDevice> on_device_;
  int exceptions_;  // that were under way when this was made
};

}  // namespace ftrain
