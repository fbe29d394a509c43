#include "tests/cuda/standin/queue.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "tests/cuda/standin/calls.h"
#include "tests/cuda/standin/memory.h"
#include "tests/cuda/standin/standin.h"

namespace standin {
namespace {

using namespace std::chrono_literals;

// How long an engine lets others wait in host functions before it goes on with what nobody asked
// it for.
constexpr auto patience = 5ms;

thread_local bool inside_host_function = false;
thread_local bool inside_operation = false;

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

class Queues {
 public:
  // Never destroyed: engines outlive main().
  static Queues& all() {
    static Queues* const queues = new Queues;
    return *queues;
  }

  std::shared_ptr<Engine> make() {
    auto engine = std::make_shared<Engine>();
    engine->holders = 1;
    const std::scoped_lock lock(mutex_);
    engines_.insert(engine);
    std::thread([this, engine] { work(engine); }).detach();
    return engine;
  }
  void change_holders(Engine& engine, int by) {
    const std::scoped_lock lock(mutex_);
    engine.holders += by;
    changed_.notify_all();
  }

  OperationPtr put(std::shared_ptr<Engine> engine, int lane, std::shared_ptr<const Work> work,
                   const std::vector<OperationPtr>& after) {
    auto made = std::make_shared<Operation>();
    made->work = std::move(work);
    made->lane = lane;
    const std::scoped_lock lock(mutex_);
    for (const OperationPtr& other : after) {
      if (!other || other->done) continue;
      made->after.push_back(other);
      other->before.push_back(made);
    }
    made->missing = made->after.size();
    engine->pending.insert(made);
    made->engine = std::move(engine);
    return made;
  }

  void want(const OperationPtr& operation) {
    const std::scoped_lock lock(mutex_);
    want_locked(operation);
    changed_.notify_all();
  }
  void wait_for(const OperationPtr& operation) {
    std::unique_lock lock(mutex_);
    want_locked(operation);
    changed_.notify_all();
    changed_.wait(lock, [&] { return operation->done; });
  }
  void wait_for_all(const Engine* engine) {
    std::unique_lock lock(mutex_);
    std::vector<OperationPtr> wanted;
    for (const auto& each : engines_) {
      if (engine != nullptr && each.get() != engine) continue;
      wanted.insert(wanted.end(), each->pending.begin(), each->pending.end());
    }
    for (const OperationPtr& each : wanted) want_locked(each);
    changed_.notify_all();
    for (const OperationPtr& each : wanted) changed_.wait(lock, [&] { return each->done; });
  }
  bool is_done(const OperationPtr& operation) {
    const std::scoped_lock lock(mutex_);
    return operation->done;
  }

  cudaError_t sticky() {
    const std::scoped_lock lock(mutex_);
    return sticky_;
  }
  void set_sticky(cudaError_t error) {
    const std::scoped_lock lock(mutex_);
    if (sticky_ == cudaSuccess) sticky_ = error;
  }
  std::exception_ptr take_failure() {
    const std::scoped_lock lock(mutex_);
    return std::exchange(failure_, nullptr);
  }
  void forget() {
    const std::scoped_lock lock(mutex_);
    sticky_ = cudaSuccess;
    failure_ = nullptr;
  }

 private:
  static void want_locked(const OperationPtr& operation) {
    std::vector<OperationPtr> next{operation};
    while (!next.empty()) {
      const OperationPtr one = std::move(next.back());
      next.pop_back();
      if (one->done || one->wanted) continue;
      one->wanted = true;
      if (one->missing == 0) {
        one->engine->ready.push_back(one);
      } else {
        next.insert(next.end(), one->after.begin(), one->after.end());
      }
    }
  }

  // Streams take turns by a ranking that is drawn anew now and then, so that one gets far ahead of
  // another, or far behind it.
  static std::size_t choose(Engine& engine) {
    const std::uint64_t seed = mix(settings().seed + 0x9e3779b97f4a7c15u);
    if (mix(seed ^ ++engine.choices) % 16 == 0) ++engine.epoch;
    const auto rank = [&](const OperationPtr& operation) {
      return mix(seed ^ engine.epoch << 20 ^ static_cast<std::uint64_t>(operation->lane));
    };
    std::size_t best = 0;
    for (std::size_t i = 1; i < engine.ready.size(); ++i) {
      if (rank(engine.ready[i]) < rank(engine.ready[best])) best = i;
    }
    return best;
  }

  void work(const std::shared_ptr<Engine>& engine) {
    std::unique_lock lock(mutex_);
    const auto is_over = [&] { return engine->holders == 0 && engine->pending.empty(); };
    const auto is_awake = [&] { return !engine->ready.empty() || is_over(); };
    bool open = false;
    while (!is_over()) {
      if (!engine->ready.empty()) {
        if (!std::exchange(open, true)) open_memory();
        const std::size_t chosen = choose(*engine);
        const OperationPtr operation = engine->ready[chosen];
        engine->ready.erase(engine->ready.begin() + static_cast<std::ptrdiff_t>(chosen));
        if (operation->work && sticky_ == cudaSuccess) run(*operation->work, lock);
        finish(operation);
        continue;
      }
      if (std::exchange(open, false)) close_memory();
      const auto is_asked = [&] { return host_functions_ > 0 && !engine->pending.empty(); };
      if (!is_asked()) {
        changed_.wait(lock, [&] { return is_awake() || is_asked(); });
      } else if (!changed_.wait_for(lock, patience, is_awake)) {
        const std::vector<OperationPtr> pending(engine->pending.begin(), engine->pending.end());
        for (const OperationPtr& operation : pending) want_locked(operation);
      }
    }
    if (open) close_memory();
    engines_.erase(engine);
  }

  void run(const Work& work, std::unique_lock<std::mutex>& lock) {
    host_functions_ += work.by_host ? 1 : 0;
    if (work.by_host) changed_.notify_all();
    lock.unlock();
    if (work.by_host) close_memory();
    inside_operation = true;
    inside_host_function = work.by_host;
    std::exception_ptr failure;
    try {
      work.run();
    } catch (...) {
      failure = std::current_exception();
    }
    inside_operation = inside_host_function = false;
    if (work.by_host) open_memory();
    lock.lock();
    host_functions_ -= work.by_host ? 1 : 0;
    if (!failure) return;
    if (!failure_) failure_ = failure;
    if (sticky_ == cudaSuccess) sticky_ = cudaErrorLaunchFailure;
  }

  void finish(const OperationPtr& operation) {
    operation->done = true;
    operation->when = std::chrono::steady_clock::now();
    for (const OperationPtr& next : operation->before) {
      if (--next->missing == 0 && next->wanted) next->engine->ready.push_back(next);
    }
    operation->before.clear();
    operation->after.clear();
    operation->work = nullptr;
    operation->engine->pending.erase(operation);
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_set<std::shared_ptr<Engine>> engines_;
  int host_functions_ = 0;  // under way
  cudaError_t sticky_ = cudaSuccess;
  std::exception_ptr failure_;
};

struct OwnEngine {
  OwnEngine() = default;
  OwnEngine(const OwnEngine&) = delete;
  OwnEngine& operator=(const OwnEngine&) = delete;
  ~OwnEngine() {
    if (engine) release(engine);
  }
  std::shared_ptr<Engine> engine;
};
thread_local OwnEngine own_engine;

}  // namespace

std::shared_ptr<Engine> Engine::own() {
  if (!own_engine.engine) own_engine.engine = Queues::all().make();
  return own_engine.engine;
}
void hold(const std::shared_ptr<Engine>& engine) {
  Queues::all().change_holders(*engine, 1);
}
void release(const std::shared_ptr<Engine>& engine) {
  Queues::all().change_holders(*engine, -1);
}

OperationPtr put(std::shared_ptr<Engine> engine, int lane, std::shared_ptr<const Work> work,
                 const std::vector<OperationPtr>& after) {
  return Queues::all().put(std::move(engine), lane, std::move(work), after);
}
void want(const OperationPtr& operation) {
  Queues::all().want(operation);
}
void wait_for(const OperationPtr& operation) {
  if (operation) Queues::all().wait_for(operation);
  throw_failure();
}
void wait_for_all() {
  Queues::all().wait_for_all(own_engine.engine.get());
}
bool is_done(const OperationPtr& operation) {
  return Queues::all().is_done(operation);
}
void throw_failure() {
  if (std::uncaught_exceptions() > 0) return;  // destructors wait too
  if (const std::exception_ptr failure = Queues::all().take_failure()) {
    std::rethrow_exception(failure);
  }
}

bool in_host_function() {
  return inside_host_function;
}
bool in_operation() {
  return inside_operation;
}
cudaError_t sticky_error() {
  return Queues::all().sticky();
}
void set_sticky(cudaError_t error) {
  Queues::all().set_sticky(error);
}
void forget_failures() {
  Queues::all().forget();
}

}  // namespace standin
