// What streams are: operations, each done after certain others, when somebody waits for it.
//
// Every host thread that makes streams has an engine: a thread that does the operations of these
// streams, and only those that are wanted: what a call waits for, and what these come after. Of
// several that could be done next the seed chooses. While a host function runs, which may wait for
// another rank, engines that are idle go on with all they have, as a GPU would.
// Threads: all functions from any, with no lock held.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

namespace standin {

// Shared by an operation and those that a graph repeats it with.
struct Work {
  std::function<void()> run;  // none: a point between others
  bool by_host = false;       // a host function: device memory is closed to it, and it may wait
};

struct Engine;

struct Operation {
  std::shared_ptr<const Work> work;
  std::shared_ptr<Engine> engine;
  int lane = 0;  // the stream's number
  std::vector<std::shared_ptr<Operation>> after, before;
  std::size_t missing = 0;  // of `after`
  bool wanted = false, done = false;
  std::chrono::steady_clock::time_point when;  // it was done
};
using OperationPtr = std::shared_ptr<Operation>;

struct Engine {
  // Of this thread, which holds it; made at the first call.
  static std::shared_ptr<Engine> own();

  int lanes = 0;  // streams made so far
  // Of queue.cpp alone:
  int holders = 0;                  // its host thread and its streams
  std::vector<OperationPtr> ready;  // wanted, and nothing missing
  std::unordered_set<OperationPtr> pending;
  std::uint64_t choices = 0, epoch = 0;
};
// While somebody holds an engine its thread lives.
void hold(const std::shared_ptr<Engine>& engine);
void release(const std::shared_ptr<Engine>& engine);

// Puts an operation behind others (nullptrs and those done are passed over).
OperationPtr put(std::shared_ptr<Engine> engine, int lane, std::shared_ptr<const Work> work,
                 const std::vector<OperationPtr>& after);
// Has it done, at some time.
void want(const OperationPtr& operation);
// Returns when it is done. Throws what went wrong in an operation, once.
void wait_for(const OperationPtr& operation);
// For all of this thread's engine, or of all engines where it has none. Throws nothing.
void wait_for_all();
void throw_failure();  // what an operation threw and nobody has heard of
bool is_done(const OperationPtr& operation);

// From within an operation.
bool in_host_function();
bool in_operation();
// Error that ended all work, if any; what it was thrown as has been thrown, or is by wait_for().
cudaError_t sticky_error();
void set_sticky(cudaError_t error);
// What operations have failed with is forgotten.
void forget_failures();

}  // namespace standin
