#include "core/checkpoint/saver.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/checkpoint/part.h"
#include "ftrain/base/error.h"

namespace ftrain {
namespace {

// Thrown out of a write that nobody waits for any more.
struct Abandoned {};

// What another machine made on a shared file system may take a moment to be seen here.
template <class Seen>
bool appears(const Seen& seen) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point end = Clock::now() + std::chrono::seconds(10);
  while (!seen()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

constexpr int files = 2;
const char* const file_names[files] = {"rank-", "rows-"};

std::string shard_name(int file, int rank) {
  return file_names[file] + std::to_string(rank);
}

// Why a rank's part is not on the disk. The first word of a message between ranks.
enum class Failure : char { none = 'n', data = 'd', memory = 'm' };

struct Outcome {
  FileSeal seals[files];
  std::int64_t failed = 0;
};

}  // namespace

struct CheckpointSaver::State {
  std::filesystem::path folder;
  std::string job;
  const StateStore& store;
  Communicator* communicator;
  bool asynchronous;
  int rank = 0, ranks = 1;

  // Of the pending checkpoint.
  bool pending = false;
  std::int64_t step = 0;
  CheckpointExtra extra;
  std::optional<CheckpointWriter> writer = std::nullopt;  // the first rank's
  std::filesystem::path place = {};                       // the hidden folder
  CheckpointPart part = {};
  std::unique_ptr<std::byte[]> copy = nullptr;
  std::vector<std::byte> buffer = {};  // without a copy
  std::vector<TensorView> views[files] = {};
  std::thread thread = {};
  std::atomic<bool> written = false, abandoned = false;
  // The thread's until `written`.
  Outcome outcome = {};
  Failure failure = Failure::none;
  std::string reason = {};

  // `work`, its failure kept for finish(): the other ranks must hear of it.
  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (const std::bad_alloc&) {
      failure = Failure::memory;
      reason = "no memory for a copy of the state (" + std::to_string(part.bytes() >> 20) +
               " MiB) to write beside the training; set checkpoint.asynchronous = false";
    } catch (const std::exception& error) {
      failure = Failure::data;
      reason = error.what();
    } catch (const Abandoned&) {
      failure = Failure::data;
      reason = "the checkpoint was given up";
    }
  }

  // So that the states may change from here on.
  void make_copy() {
    copy = std::make_unique_for_overwrite<std::byte[]>(part.bytes());
    std::byte* next = copy.get();
    for (const auto* list : {&part.share, &part.rows}) {
      for (const CheckpointPiece& piece : *list) {
        if (piece.shape == piece.spec->type.shape) {
          store.read(piece.spec->name, next);
        } else {
          store.read_part(piece.spec->name, piece.first,
                          static_cast<std::size_t>(piece.shape.elements()), next);
        }
        next += piece.bytes();
      }
    }
  }

  // What write() writes: from the copy, or from the states themselves bit by bit.
  void make_views() {
    const std::byte* next = copy.get();
    int file = 0;
    for (const auto* list : {&part.share, &part.rows}) {
      views[file].clear();
      for (const CheckpointPiece& piece : *list) {
        views[file].push_back({piece.name, piece.spec->type.dtype, piece.shape, nullptr,
                               [this, &piece, next](std::size_t first, std::size_t bytes) {
                                 if (abandoned) throw Abandoned();
                                 return next ? next + first : read(piece, first, bytes);
                               }});
        if (next) next += piece.bytes();
      }
      ++file;
    }
  }

  void write() {
    const bool seen = appears([&] {
      if (abandoned) throw Abandoned();
      return std::filesystem::exists(place);
    });
    if (!seen) {
      throw DataError(place.string() +
                      ": the first rank made this folder, but it is not seen here; set run.folder "
                      "to a place that all machines share");
    }
    for (int file = 0; file < files; ++file) {
      // One rank alone has a file even of no states.
      if (views[file].empty() && (ranks > 1 || file > 0)) continue;
      outcome.seals[file] =
          write_safetensors(place / (shard_name(file, rank) + ".safetensors"), views[file]);
    }
  }

  const std::byte* read(const CheckpointPiece& piece, std::size_t first, std::size_t bytes) {
    const StateSpec& spec = *piece.spec;
    const auto grow = [&](std::size_t size) {
      if (buffer.size() >= size) return;
      buffer = {};  // first: old and new need not stand side by side
      buffer.resize(size);
    };
    const std::size_t size = size_of(spec.type.dtype);
    if (spec.type.layout.empty()) {
      grow(bytes);
      store.read_part(spec.name, piece.first + first / size, bytes / size, buffer.data());
      return buffer.data();
    }
    // A state that the device holds in an order of its own is turned round once, as a whole.
    if (first == 0) {
      grow(spec.type.bytes());
      store.read(spec.name, buffer.data());
    }
    return buffer.data() + piece.first * size + first;
  }

  // Every rank hears what the first one has to say: the folder, or why there is none.
  std::string from_first(const std::string& text) {
    return ranks == 1 ? text : gather_texts(*communicator, text).front();
  }
  std::string with_place(const std::string& text) const {
    return ranks == 1 ? text : communicator->place().text() + ": " + text;
  }

  void make_folder() {
    std::string text;
    if (rank == 0) {
      try {
        writer.emplace(folder, step, job);
        text = static_cast<char>(Failure::none) + writer->temporary().string();
      } catch (const std::exception& error) {
        text = static_cast<char>(Failure::data) + with_place(error.what());
      }
    }
    text = from_first(text);
    if (text.front() != static_cast<char>(Failure::none)) {
      if (rank == 0) throw DataError(text.substr(1));
      throw PeerError(text.substr(1));
    }
    place = text.substr(1);
  }

  // Takes in all ranks' files and puts the checkpoint in its place: the first rank.
  std::filesystem::path commit(const std::vector<Outcome>& outcomes) {
    for (int r = 0; r < ranks; ++r) {
      for (int file = 0; file < files; ++file) {
        const FileSeal& seal = outcomes[static_cast<std::size_t>(r)].seals[file];
        if (seal.bytes == 0) continue;
        const std::filesystem::path path = place / (shard_name(file, r) + ".safetensors");
        const bool seen = appears([&] {
          std::error_code absent;
          return std::filesystem::file_size(path, absent) == seal.bytes && !absent;
        });
        if (!seen) {
          throw DataError(path.string() + ": rank " + std::to_string(r) +
                          " wrote this file, but it is not seen here; set run.folder to a place "
                          "that all machines share");
        }
        writer->adopt_shard(shard_name(file, r), seal);
      }
    }
    return writer->commit(extra);
  }

  void join() {
    if (thread.joinable()) thread.join();
    copy.reset();
    buffer = {};
  }

  // Removes what this rank wrote; the folder goes with the last one that is in it.
  void remove() {
    std::error_code ignored;
    for (int file = 0; file < files; ++file) {
      std::filesystem::remove(place / (shard_name(file, rank) + ".safetensors"), ignored);
    }
    writer.reset();
    if (!place.empty()) std::filesystem::remove(place, ignored);
  }
};

CheckpointSaver::CheckpointSaver(std::filesystem::path folder, std::string job,
                                 const StateStore& store, Communicator* communicator,
                                 bool asynchronous)
    : state_(new State{.folder = std::move(folder),
                       .job = std::move(job),
                       .store = store,
                       .communicator = communicator,
                       .asynchronous = asynchronous,
                       .step = 0,
                       .extra = {}}) {
  if (communicator == nullptr) return;
  state_->rank = communicator->rank();
  state_->ranks = communicator->size();
}

CheckpointSaver::~CheckpointSaver() {
  if (!state_->pending) return;
  state_->abandoned = true;
  state_->join();
  state_->remove();
}

void CheckpointSaver::begin(std::int64_t step, const CheckpointExtra& extra) {
  State& s = *state_;
  s.step = step;
  s.extra = extra;
  s.outcome = {};
  s.failure = Failure::none;
  s.reason.clear();
  s.written = false;
  s.make_folder();
  s.pending = true;
  s.part = checkpoint_part(s.store, s.rank, s.ranks);
  if (!s.asynchronous) {
    s.guarded([&] {
      s.make_views();
      s.write();
    });
    s.written = true;
    return;
  }
  bool started = false;
  s.guarded([&] {
    s.make_copy();
    s.make_views();
    s.thread = std::thread([&s] {
      // The step's threads come first.
      ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 15);
      s.guarded([&] { s.write(); });
      s.copy.reset();
      s.written = true;
    });
    started = true;
  });
  if (!started) s.written = true;
}

bool CheckpointSaver::pending() const {
  return state_->pending;
}

std::int64_t CheckpointSaver::step() const {
  return state_->step;
}

bool CheckpointSaver::ready() const {
  return state_->written;
}

std::filesystem::path CheckpointSaver::finish() {
  State& s = *state_;
  s.join();
  s.outcome.failed = s.failure == Failure::none ? 0 : 1;
  std::vector<Outcome> outcomes(static_cast<std::size_t>(s.ranks));
  if (s.ranks == 1) {
    outcomes[0] = s.outcome;
  } else {
    s.communicator->all_gather(&s.outcome, outcomes.data(), sizeof(Outcome));
  }
  const auto failed = std::find_if(outcomes.begin(), outcomes.end(),
                                   [](const Outcome& outcome) { return outcome.failed != 0; });
  if (failed != outcomes.end()) {
    const std::string mine = s.failure == Failure::none ? "" : s.with_place(s.reason);
    const auto first_failed = static_cast<std::size_t>(failed - outcomes.begin());
    const std::string told =
        s.ranks == 1 ? mine : gather_texts(*s.communicator, mine)[first_failed];
    s.remove();
    s.pending = false;
    // Nobody ends, and has the others ended, before all is removed.
    if (s.ranks > 1) s.communicator->barrier();
    if (s.failure == Failure::memory) throw DeviceError(mine);
    if (s.failure == Failure::data) throw DataError(mine);
    throw PeerError(told);
  }
  std::filesystem::path path;
  std::string text;
  if (s.rank == 0) {
    try {
      path = s.commit(outcomes);
      text = static_cast<char>(Failure::none) + path.string();
    } catch (const std::exception& error) {
      text = static_cast<char>(Failure::data) + s.with_place(error.what());
    }
    s.writer.reset();
  }
  text = s.from_first(text);
  s.pending = false;
  if (text.front() == static_cast<char>(Failure::none)) return text.substr(1);
  if (s.rank == 0) throw DataError(text.substr(1));
  throw PeerError(text.substr(1));
}

std::size_t CheckpointSaver::copy_bytes(const StateStore& store, int rank, int ranks,
                                        bool asynchronous) {
  return asynchronous ? checkpoint_part(store, rank, ranks).bytes() : 0;
}

}  // namespace ftrain
