#include "tests/plugins/communicators/nccl/fake_nccl.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <memory>

struct ncclComm {
  int polls = 0;
  bool in_init = true, gone = false;
};

namespace ftrain::fake_nccl {
namespace {

thread_local int rank_of_thread = 0, depth = 0;

// Those that are gone are remembered: who uses one is found out.
ncclResult_t use(ncclComm_t comm, const std::string& what) {
  if (comm == nullptr || comm->gone) {
    world().add("misuse: " + what + " of a communicator that is gone");
    return ncclInvalidArgument;
  }
  return ncclSuccess;
}

ncclResult_t collective(ncclComm_t comm, const std::string& what) {
  if (const auto result = use(comm, what); result != ncclSuccess) return result;
  if (depth != 1) world().add("misuse: " + what + " in no group");
  world().add(what);
  comm->polls = 0;
  return world().collective;
}

ncclResult_t end(ncclComm_t comm, const std::string& what) {
  if (const auto result = use(comm, what); result != ncclSuccess) return result;
  world().add(what);
  comm->gone = true;
  return ncclSuccess;
}

}  // namespace

World& world() {
  static World world;
  return world;
}

void World::add(const std::string& what) {
  const std::lock_guard lock(mutex);
  done.push_back(what);
}

std::string World::text() {
  const std::lock_guard lock(mutex);
  std::string text;
  for (const std::string& one : done) text += (text.empty() ? "" : ", ") + one;
  return text;
}

void reset() {
  World& all = world();
  all.done.clear();
  all.polls = 3;
  all.init_hangs = false;
  all.collective = ncclSuccess;
  all.trouble = ncclSuccess;
  all.same_gpu = false;
}

void set_rank(int rank) {
  rank_of_thread = rank;
}

}  // namespace ftrain::fake_nccl

using namespace ftrain::fake_nccl;

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id->internal, 7, sizeof id->internal);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->blocking != 0) world().add("misuse: init that blocks");
  if (id.internal[0] != 7) world().add("misuse: init by another number");
  world().add("init " + std::to_string(rank) + "/" + std::to_string(ranks));
  static std::mutex mutex;
  static std::vector<std::unique_ptr<ncclComm>> all;
  const std::lock_guard lock(mutex);
  *comm = all.emplace_back(std::make_unique<ncclComm>()).get();
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  if (const auto result = use(comm, "asking"); result != ncclSuccess) return result;
  *error = world().trouble;
  if (*error != ncclSuccess) return ncclSuccess;
  if (comm->in_init && world().init_hangs) comm->polls = 0;
  if (comm->polls < world().polls) {
    ++comm->polls;
    *error = ncclInProgress;
  } else {
    comm->in_init = false;
  }
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++depth;
  world().add("group");
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--depth < 0) world().add("misuse: end of no group");
  world().add("end");
  return ncclInProgress;
}

ncclResult_t ncclAllReduce(const void*, void*, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t) {
  return collective(comm, "all_reduce " + std::to_string(count) + " of " + std::to_string(type) +
                              (op == ncclMax ? " max" : ""));
}
ncclResult_t ncclAllGather(const void*, void*, std::size_t count, ncclDataType_t, ncclComm_t comm,
                           cudaStream_t) {
  return collective(comm, "all_gather " + std::to_string(count));
}
ncclResult_t ncclReduceScatter(const void*, void*, std::size_t count, ncclDataType_t, ncclRedOp_t,
                               ncclComm_t comm, cudaStream_t) {
  return collective(comm, "reduce_scatter " + std::to_string(count));
}
ncclResult_t ncclBroadcast(const void*, void*, std::size_t count, ncclDataType_t, int root,
                           ncclComm_t comm, cudaStream_t) {
  return collective(comm, "broadcast " + std::to_string(count) + " from " + std::to_string(root));
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  if (const auto result = use(comm, "finalize"); result != ncclSuccess) return result;
  world().add("finalize");
  comm->polls = 0;
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  return end(comm, "destroy");
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  return end(comm, "abort");
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclRemoteError ? "remote process exited" : "some error";
}
const char* ncclGetLastError(ncclComm_t) {
  return "connection closed by 10.0.0.2";
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* address, int size, int) {
  std::snprintf(address, static_cast<std::size_t>(size), "0000:%02d:00.0",
                world().same_gpu ? 0 : rank_of_thread);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t) {
  return "";
}

}  // extern "C"
