// The GPUs of some ranks joined by NCCL: what a device enqueues on its stream.
//
// Ownership: of NCCL's communicator and of a thread that looks every moment whether NCCL met an
// error, and that ends it: NCCL may take its time for that, and who calls abort() is not kept.
// Graphs that collectives were captured into must be gone before it. Threads: abort() from any, the
// rest from the rank's own. Failure: CommunicationError that names the rank, NCCL's words and what
// was enqueued last; everything enqueued before then ends, with undefined results.
#pragma once

#include <nccl.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "ftrain/device/communicator.h"

namespace ftrain::nccl {

class Link final : public DeviceCollectives {
 public:
  // Of the rank at `place`; not joined yet.
  explicit Link(const RankPlace& place);
  ~Link() override;
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Collective over the carrier's ranks, each with its device current. Once; abort() ends it.
  void join(Communicator& carrier);

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                  void* stream) override;
  void all_gather(const void* in, void* out, std::size_t bytes, void* stream) override;
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                      void* stream) override;
  void broadcast(void* data, std::size_t bytes, int root, void* stream) override;
  void begin_group() override;
  void end_group() override;
  void wait(const std::function<void()>& wait) override;

  // Ends what is enqueued. The first reason stays.
  void abort(const std::string& reason);

 private:
  void enqueue(const std::function<ncclResult_t()>& collective, const char* name,
               std::size_t bytes);
  // Until NCCL's own threads have put on the stream what was asked for.
  void settle();
  void look_after();
  // What NCCL met by itself; with the lock held.
  ncclResult_t state() const;
  void begins(std::string what);
  // The first reason stays.
  void end(const std::string& reason);
  bool ended() const;
  void check_alive() const;

  const std::string rank_;  // "rank 3 on node07"
  std::mutex mutex_;        // of NCCL's communicator
  ncclComm_t comm_ = nullptr;
  std::unique_lock<std::mutex> group_;  // held from begin_group() to end_group()

  mutable std::mutex reason_mutex_;  // of what follows; held for moments, taken after the other
  std::condition_variable changed_;
  std::string reason_;            // why it has ended; empty: it lives
  std::string last_ = "nothing";  // what was enqueued last
  bool closing_ = false;
  std::thread watch_;
};

}  // namespace ftrain::nccl
