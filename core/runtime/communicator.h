// Ranks that exchange tensors.
//
// Collectives are called by all ranks in the same order with the same sizes; each blocks until this
// rank's part is done. Buffers are host memory. Sums are made in rank order, so every rank gets the
// same bits. Failure: CommunicationError naming the rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/dtype.h"
#include "core/config/keys.h"
#include "core/plugin/api.h"

namespace ftrain {

enum class Reduction { sum, max };

class FTRAIN_API Communicator : public Configurable {
 public:
  static constexpr const char* kind = "communicator";
  ~Communicator() override;

  // Joins the `size` ranks of `job` as number `rank`; returns when all are there. Called once,
  // after configure().
  virtual void connect(int rank, int size, const std::string& job) = 0;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place over `count` elements of f32, f64 or i64.
  virtual void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction) = 0;
  // `out` holds size() times `bytes`, in rank order.
  virtual void all_gather(const void* in, void* out, std::size_t bytes) = 0;
  // `in` holds size() parts of `count` elements; `out` receives the sum of this rank's part.
  virtual void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype) = 0;
  virtual void broadcast(void* data, std::size_t bytes, int root) = 0;
  virtual void barrier() = 0;
  // The ranks of one color as a communicator of their own, ordered by key, then rank.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;
  // Ends the wait of every rank with an error: a rank that failed calls it. From any thread.
  virtual void abort(const std::string& reason) = 0;
};

}  // namespace ftrain
