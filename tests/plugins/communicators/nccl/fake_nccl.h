// Stands for NCCL's library and for the GPUs: communicators that remember what they are told, are
// never at once done, and fail when a test says so.
#pragma once

#include <nccl.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

namespace ftrain::fake_nccl {

// Of all communicators in the test.
struct World {
  std::mutex mutex;
  // What was done, in order: "init 0/2", "group", "all_reduce 3", "end", "finalize", "destroy",
  // "abort"; and "misuse: ..." for what the library would not have survived.
  std::vector<std::string> done;

  std::atomic<int> polls{3};                          // until something is no longer in progress
  std::atomic<bool> init_hangs{false};                // it is in progress for ever
  std::atomic<ncclResult_t> collective{ncclSuccess};  // what collectives return
  std::atomic<ncclResult_t> trouble{ncclSuccess};     // what is met asynchronously
  std::atomic<bool> same_gpu{false};

  void add(const std::string& what);
  std::string text();  // all of it, by commas
};
World& world();
void reset();
// The rank of this thread: which GPU it has.
void set_rank(int rank);

}  // namespace ftrain::fake_nccl
