// Ranks that exchange tensors.
//
// Collectives are called by all ranks in the same order with the same sizes; each blocks until this
// rank's part is done. Buffers are host memory. Every rank gets the same bits of a sum, and two
// runs on equally many ranks do. What runs beside the step (a device that overlaps a collective
// with its kernels) calls from a thread of its own. Threads: one collective at a time, from any
// thread. Failure: CommunicationError naming the rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ftrain/base/dtype.h"
#include "ftrain/config/keys.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

enum class Reduction { sum, max };

// Which of a job's ranks this one is, and how it finds the others.
struct RankPlace {
  int rank = 0, size = 1;
  // Among the ranks that share this machine.
  int local_rank = 0, local_size = 1;
  std::string host = {};     // this machine's name, as messages give it
  std::string job = {};      // ranks of one job meet, those of different jobs do not
  std::string address = {};  // where rank 0 listens, for communicators that meet there; empty:
  int port = 0;              // the communicator's own way

  // "rank 3 on node07"
  FTRAIN_API std::string text() const;
};

// What a rank is at.
struct Work {
  const char* what = "";  // that lives as long as the program: "reading data"
  std::int64_t step = 0;  // counts from 1; 0: it belongs to no step

  // "step 12: reading data"
  FTRAIN_API std::string text() const;
};

// Collectives that a device enqueues on a stream of its own, over tensors in its own memory. Same
// contract as Communicator's, but that each returns at once; `stream` is a cudaStream_t.
class FTRAIN_API DeviceCollectives {
 public:
  virtual ~DeviceCollectives();
  virtual void all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                          void* stream) = 0;
  virtual void all_gather(const void* in, void* out, std::size_t bytes, void* stream) = 0;
  virtual void reduce_scatter(const void* in, void* out, std::int64_t count, DType dtype,
                              void* stream) = 0;
  virtual void broadcast(void* data, std::size_t bytes, int root, void* stream) = 0;
  // Between the two, collectives are put together into one. Not nested.
  virtual void begin_group() = 0;
  virtual void end_group() = 0;
  // Does `wait`, which returns when what was enqueued is done, as one operation of this rank: who
  // watches over the ranks sees that it waits and for how long. CommunicationError when collectives
  // failed or were aborted meanwhile; what they were to write is then undefined.
  virtual void wait(const std::function<void()>& wait) { wait(); }
};

class FTRAIN_API Communicator : public Configurable {
 public:
  static constexpr const char* kind = "communicator";
  ~Communicator() override;

  // Whether it exchanges memory of devices alone, and leaves memory of the host to another
  // communicator, which carry_by() gives it before connect().
  virtual bool needs_carrier() const { return false; }
  virtual void carry_by(std::unique_ptr<Communicator> carrier);

  // Joins the other ranks; returns when all are there. Called once, after configure().
  virtual void connect(const RankPlace& place) = 0;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Of the job's communicator: as connect() was given it.
  virtual const RankPlace& place() const = 0;

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

  // What a device with memory of its own enqueues; nullptr: it copies to the host and calls the
  // functions above from there. Made at the first call, in which all ranks meet, each with its
  // device chosen.
  virtual DeviceCollectives* device_collectives() { return nullptr; }

  // Tells whoever watches over the ranks what this one begins to do now. Cheap: words are made of
  // it when somebody asks. From the rank's own thread.
  virtual void working_on(const Work& work) { static_cast<void>(work); }
};

// Of every rank's text, in rank order. Collective.
FTRAIN_API std::vector<std::string> gather_texts(Communicator& communicator,
                                                 const std::string& mine);

}  // namespace ftrain
