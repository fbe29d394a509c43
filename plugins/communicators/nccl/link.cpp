#include "plugins/communicators/nccl/link.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <utility>

#include "ftrain/base/error.h"
#include "plugins/communicators/nccl/meeting.h"

namespace ftrain::nccl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto look_pause = std::chrono::milliseconds(200);
constexpr auto settle_pause = std::chrono::microseconds(50);
// How long a link that is no longer needed may take to be closed in order.
constexpr auto longest_end = std::chrono::seconds(10);

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::f64:
      return ncclFloat64;
    case DType::i64:
      return ncclInt64;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f16:
      return ncclFloat16;
    case DType::i32:
      return ncclInt32;
    default:
      throw CommunicationError("nccl does not sum " + std::string(name_of(dtype)));
  }
}

}  // namespace

Link::Link(const RankPlace& place) : rank_(place.text()), group_(mutex_, std::defer_lock) {}

Link::~Link() {
  {
    const std::lock_guard lock(reason_mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  if (watch_.joinable()) watch_.join();
  if (comm_ == nullptr) return;
  if (ended()) {
    ncclCommAbort(comm_);
    return;
  }
  // The other ranks close theirs too; one that does not is not waited for.
  ncclResult_t closed = ncclCommFinalize(comm_);
  for (const auto begin = Clock::now();
       closed == ncclInProgress && Clock::now() - begin < longest_end; closed = state()) {
    std::this_thread::sleep_for(settle_pause);
  }
  closed == ncclSuccess ? ncclCommDestroy(comm_) : ncclCommAbort(comm_);
}

// Not blocking, so that a rank which waits for one that died can be told so.
void Link::join(Communicator& carrier) {
  const ncclUniqueId id = meet(carrier, own_seat(carrier.place()));
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  watch_ = std::thread([this] { look_after(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  {
    const std::lock_guard lock(mutex_);
    check_alive();
    begins("the meeting of " + std::to_string(carrier.size()) + " GPUs");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const ncclResult_t result =
        ncclCommInitRankConfig(&comm_, carrier.size(), id, carrier.rank(), &config);
    if (result != ncclSuccess && result != ncclInProgress) end(text_of(result, comm_));
  }
  settle();
}

void Link::all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                      void* stream) {
  const ncclDataType_t type = type_of(dtype);
  const auto elements = static_cast<std::size_t>(count);
  enqueue(
      [&] {
        return ncclAllReduce(data, data, elements, type,
                             reduction == Reduction::sum ? ncclSum : ncclMax, comm_,
                             static_cast<cudaStream_t>(stream));
      },
      "all_reduce", elements * size_of(dtype));
}

void Link::all_gather(const void* in, void* out, std::size_t bytes, void* stream) {
  enqueue(
      [&] {
        return ncclAllGather(in, out, bytes, ncclUint8, comm_, static_cast<cudaStream_t>(stream));
      },
      "all_gather", bytes);
}

void Link::reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                          void* stream) {
  const ncclDataType_t type = type_of(dtype);
  const auto elements = static_cast<std::size_t>(count);
  enqueue(
      [&] {
        return ncclReduceScatter(in, out, elements, type, ncclSum, comm_,
                                 static_cast<cudaStream_t>(stream));
      },
      "reduce_scatter", elements * size_of(dtype));
}

void Link::broadcast(void* data, std::size_t bytes, int root, void* stream) {
  enqueue(
      [&] {
        return ncclBroadcast(data, data, bytes, ncclUint8, root, comm_,
                             static_cast<cudaStream_t>(stream));
      },
      "broadcast", bytes);
}

// The lock is held to the end: NCCL's communicator must not be taken from under a group.
void Link::begin_group() {
  group_.lock();
  try {
    check_alive();
  } catch (...) {
    group_.unlock();
    throw;
  }
  ncclGroupStart();
}

void Link::end_group() {
  const ncclResult_t result = ncclGroupEnd();
  if (result != ncclSuccess && result != ncclInProgress) end(text_of(result, comm_));
  group_.unlock();
  settle();
}

void Link::enqueue(const std::function<ncclResult_t()>& collective, const char* name,
                   std::size_t bytes) {
  const bool alone = !group_.owns_lock();
  if (alone) begin_group();
  begins(std::string(name) + " of " + std::to_string(bytes) + " bytes");
  const ncclResult_t result = collective();
  if (result != ncclSuccess && result != ncclInProgress) {
    end(text_of(result, comm_));
    ncclGroupEnd();
    group_.unlock();
    check_alive();
  }
  if (alone) end_group();
}

void Link::settle() {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      check_alive();
      const ncclResult_t now = state();
      if (now == ncclSuccess) return;
      if (now != ncclInProgress) end(text_of(now, comm_));
    }
    check_alive();
    std::this_thread::sleep_for(settle_pause);
  }
}

ncclResult_t Link::state() const {
  ncclResult_t found = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &found);
  return asked == ncclSuccess ? found : asked;
}

void Link::wait(const std::function<void()>& wait) {
  std::exception_ptr error;
  try {
    wait();
  } catch (...) {
    error = std::current_exception();
  }
  check_alive();  // then what the device says is only what came of it
  if (error) std::rethrow_exception(error);
}

void Link::abort(const std::string& reason) {
  end("a rank failed: " + reason);
}

// A connection that broke is known to NCCL while its kernels still wait for it.
void Link::look_after() {
  for (;;) {
    {
      std::unique_lock lock(reason_mutex_);
      changed_.wait_for(lock, look_pause, [this] { return closing_ || !reason_.empty(); });
      if (closing_) return;
    }
    const std::lock_guard lock(mutex_);
    if (!ended() && comm_ != nullptr) {
      const ncclResult_t now = state();
      if (now != ncclSuccess && now != ncclInProgress) end(text_of(now, comm_));
    }
    if (!ended()) continue;
    if (comm_ != nullptr) ncclCommAbort(std::exchange(comm_, nullptr));
    return;
  }
}

void Link::begins(std::string what) {
  const std::lock_guard lock(reason_mutex_);
  last_ = std::move(what);
}

void Link::end(const std::string& reason) {
  const std::lock_guard lock(reason_mutex_);
  if (reason_.empty()) reason_ = reason;
  changed_.notify_all();
}

bool Link::ended() const {
  const std::lock_guard lock(reason_mutex_);
  return !reason_.empty();
}

void Link::check_alive() const {
  const std::lock_guard lock(reason_mutex_);
  if (reason_.empty()) return;
  throw CommunicationError(rank_ + ": the exchange between the GPUs (NCCL) ended: " + reason_ +
                           "; what it began last was " + last_);
}

}  // namespace ftrain::nccl
