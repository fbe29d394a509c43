// The collectives of a group of ranks over a mesh.
//
// Everyone exchanges with everyone directly: on a full mesh the shortest way there is. A sum of
// much is made in parts, each rank sums one and sends it to all, cut into pieces so that sending,
// receiving and summing go on together; a sum of little is made by everyone. Either way in the
// order of the ranks, so that all get the same bits. A long broadcast passes piece by piece from
// rank to rank, a short one goes down a tree.
//
// Threads: one collective of a mesh at a time; it holds the mesh's lock. Failure: as the mesh's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "plugins/communicators/tcp/exchange.h"
#include "plugins/communicators/tcp/mesh.h"

namespace ftrain::tcp {

class Group {
 public:
  // All ranks of the mesh.
  explicit Group(std::shared_ptr<Mesh> mesh);

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }

  void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction);
  void all_gather(const void* in, void* out, std::size_t bytes);
  void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype);
  void broadcast(void* data, std::size_t bytes, int root);
  void barrier();
  std::unique_ptr<Group> split(int color, int key);
  void abort(const std::string& reason) { mesh_->abort(reason); }

 private:
  // A sum in parts, one of each rank: where they lie, and what becomes of the sums.
  struct Parts {
    const std::byte* in;
    std::byte* out;  // of this rank's sum
    std::byte* all;  // of everyone's sums; null: this rank's is enough
    std::int64_t count;
    DType dtype;
    Reduction reduction;
    // Elements of all parts before part `r`.
    std::vector<std::int64_t> begin;
  };
  class Pieces;

  Group(std::shared_ptr<Mesh> mesh, std::vector<int> members, int rank, std::uint64_t id);
  std::unique_lock<std::mutex> begin(Call call);
  void everyone_sums(void* data, std::int64_t count, DType dtype, Reduction reduction);
  void pass_down_tree(void* data, std::size_t bytes, int root);
  void pass_along(void* data, std::size_t bytes, int root);
  void send(int to, const void* data, std::size_t bytes);
  void receive(int from, void* data, std::size_t bytes, std::function<void()> arrived = {});
  // The others, starting behind this rank: not all at once upon the same one.
  template <class F>
  void for_others(F f) {
    for (int i = 1; i < size(); ++i) f((rank_ + i) % size());
  }

  std::shared_ptr<Mesh> mesh_;
  std::vector<int> members_;  // ranks of the mesh
  int rank_;
  std::uint64_t id_, number_ = 0;
  Exchange exchange_;
  std::vector<std::byte> scratch_;
};

}  // namespace ftrain::tcp
