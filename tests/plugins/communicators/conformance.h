// What every communicator keeps to, whatever carries its bytes.
//
// Each rank of a connected communicator calls the same functions in the same order, from a thread
// or a process of its own; what is wrong is a failure of the running test. Values are small whole
// numbers where a sum must be exact and random floats where its bits must agree.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/device/communicator.h"

namespace ftrain::conformance {

// Nothing, one, odd, more than a page, and enough for what is only worth its while on large ones.
inline constexpr std::int64_t counts[] = {0, 1, 3, 1021, 20'011, 300'007};

// Of all sizes, so that the order of a sum shows in its bits.
inline std::vector<float> random_floats(std::int64_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) {
    const std::uint64_t bits = random();
    value = std::ldexp(static_cast<float>(static_cast<std::int32_t>(bits)),
                       static_cast<int>(bits >> 60) - 40);
  }
  return values;
}

template <class T>
void expect_reductions(Communicator& c) {
  const int size = c.size(), ranks = size * (size + 1) / 2;
  for (const std::int64_t count : counts) {
    std::vector<T> values(static_cast<std::size_t>(count)), largest(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const int step = static_cast<int>(i % 1009) - 500;
      values[i] = static_cast<T>((c.rank() + 1) * step);
      largest[i] = static_cast<T>(static_cast<int>(i) % size == c.rank() ? step : step - 7);
    }
    c.all_reduce(values.data(), count, dtype_of<T>, Reduction::sum);
    c.all_reduce(largest.data(), count, dtype_of<T>, Reduction::max);
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const int step = static_cast<int>(i % 1009) - 500;
      if (values[i] != static_cast<T>(ranks * step) || largest[i] != static_cast<T>(step)) ++wrong;
    }
    EXPECT_EQ(wrong, 0) << "rank " << c.rank() << ", all_reduce of " << count << " elements of "
                        << sizeof(T) << " bytes";
  }
}

template <class T>
void expect_scattered_sums(Communicator& c) {
  const int size = c.size(), ranks = size * (size - 1) / 2;
  for (const std::int64_t count : counts) {
    std::vector<T> parts(static_cast<std::size_t>(count * size)),
        sum(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < parts.size(); ++i) {
      parts[i] = static_cast<T>(static_cast<int>(i % 1013) + c.rank());
    }
    c.reduce_scatter(parts.data(), sum.data(), count, dtype_of<T>);
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < sum.size(); ++i) {
      const std::size_t at = static_cast<std::size_t>(c.rank() * count) + i;
      if (sum[i] != static_cast<T>(size * static_cast<int>(at % 1013) + ranks)) ++wrong;
    }
    EXPECT_EQ(wrong, 0) << "rank " << c.rank() << ", reduce_scatter of " << count << " elements";
  }
}

// Sums of floats that rounding makes different in another order: the same on every rank, and again.
inline void expect_same_bits(Communicator& c) {
  for (const std::int64_t count : counts) {
    const auto mine = random_floats(count, static_cast<std::uint64_t>(100 + c.rank()));
    const std::size_t bytes = mine.size() * sizeof(float);
    std::vector<float> first = mine, again = mine;
    c.all_reduce(first.data(), count, DType::f32, Reduction::sum);
    c.barrier();
    c.all_reduce(again.data(), count, DType::f32, Reduction::sum);
    EXPECT_TRUE(std::equal(first.begin(), first.end(), again.begin()))
        << "rank " << c.rank() << " got two sums of the same " << count << " floats";
    std::vector<float> all(mine.size() * static_cast<std::size_t>(c.size()));
    c.all_gather(first.data(), all.data(), bytes);
    for (int r = 0; r < c.size(); ++r) {
      EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin() + r * count))
          << "rank " << c.rank() << " and rank " << r << " got other sums of " << count
          << " floats";
    }
    std::vector<double> exact(mine.size(), 0.0), scale(mine.size(), 0.0);
    for (int r = 0; r < c.size(); ++r) {
      const auto theirs = random_floats(count, static_cast<std::uint64_t>(100 + r));
      for (std::size_t i = 0; i < exact.size(); ++i) {
        exact[i] += theirs[i];
        scale[i] += std::abs(theirs[i]);
      }
    }
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      if (std::abs(first[i] - exact[i]) > 1e-6 * scale[i]) ++wrong;
    }
    EXPECT_EQ(wrong, 0) << "rank " << c.rank() << ", sums of " << count << " random floats";
  }
}

inline void expect_gathers_and_broadcasts(Communicator& c) {
  const auto byte_of = [](int rank, std::size_t i) {
    return static_cast<unsigned char>(static_cast<std::size_t>(rank) * 31 + i % 251);
  };
  const auto expect_from = [&](const unsigned char* bytes, std::size_t size, int rank,
                               const char* operation) {
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < size; ++i) wrong += bytes[i] != byte_of(rank, i);
    EXPECT_EQ(wrong, 0u) << "rank " << c.rank() << ", " << operation << " of " << size
                         << " bytes of rank " << rank;
  };
  std::vector<std::int64_t> sizes(std::begin(counts), std::end(counts));
  sizes.push_back(5'000'011);
  for (const std::int64_t count : sizes) {
    const auto size = static_cast<std::size_t>(count);
    std::vector<unsigned char> mine(size), all(size * static_cast<std::size_t>(c.size()));
    const auto fill = [&] {
      for (std::size_t i = 0; i < size; ++i) mine[i] = byte_of(c.rank(), i);
    };
    fill();
    c.all_gather(mine.data(), all.data(), size);
    for (int r = 0; r < c.size(); ++r) {
      expect_from(all.data() + static_cast<std::size_t>(r) * size, size, r, "all_gather");
    }
    // Large ones from the last rank alone: the checks take most of the time.
    for (int root = size < 1'000'000 ? 0 : c.size() - 1; root < c.size(); ++root) {
      fill();
      c.broadcast(mine.data(), size, root);
      expect_from(mine.data(), size, root, "broadcast");
    }
  }
  // Texts of other lengths, one of them empty.
  const auto texts = gather_texts(c, std::string(static_cast<std::size_t>(c.rank()) * 5, 'x'));
  ASSERT_EQ(texts.size(), static_cast<std::size_t>(c.size()));
  for (std::size_t r = 0; r < texts.size(); ++r) EXPECT_EQ(texts[r], std::string(r * 5, 'x'));
}

// Parts by color, ordered by key and then rank; parts of parts; the whole works beside its parts.
inline void expect_parts(Communicator& c) {
  for (int round = 0; round < 3; ++round) {
    const int color = c.rank() % 2;
    const auto part = c.split(color, color == 0 ? -c.rank() : 7);
    const int evens = (c.size() + 1) / 2;
    const int expected = color == 0 ? evens : c.size() - evens;
    ASSERT_EQ(part->size(), expected);
    EXPECT_EQ(part->rank(), color == 0 ? expected - 1 - c.rank() / 2 : c.rank() / 2);
    EXPECT_EQ(part->place().rank, c.place().rank);
    std::vector<int> members(static_cast<std::size_t>(part->size()));
    const int me = c.rank();
    part->all_gather(&me, members.data(), sizeof(me));
    for (int r = 0; r < expected; ++r) {
      EXPECT_EQ(members[static_cast<std::size_t>(r)],
                color == 0 ? 2 * (expected - 1 - r) : 2 * r + 1);
    }
    std::int64_t in_part = 1, in_all = 1;
    part->all_reduce(&in_part, 1, DType::i64, Reduction::sum);
    c.all_reduce(&in_all, 1, DType::i64, Reduction::sum);
    EXPECT_EQ(in_part, expected);
    EXPECT_EQ(in_all, c.size());
    const auto alone = part->split(part->rank(), 0);
    EXPECT_EQ(alone->size(), 1);
    double value = 2;
    alone->all_reduce(&value, 1, DType::f64, Reduction::sum);
    EXPECT_EQ(value, 2);
  }
  c.barrier();
}

// Many small collectives in a row in an order that only a seed knows, from another thread each
// time.
inline void expect_order_and_threads(Communicator& c) {
  std::mt19937 random(7);
  for (int turn = 0; turn < 12; ++turn) {
    std::thread([&] {
      for (int i = 0; i < 25; ++i) {
        const int kind = static_cast<int>(random() % 4), root = static_cast<int>(random()) & 0xff;
        const auto count = static_cast<std::size_t>(random() % 40);
        std::vector<std::int64_t> mine(count, c.rank() + i);
        if (kind == 0) {
          c.all_reduce(mine.data(), static_cast<std::int64_t>(count), DType::i64, Reduction::max);
          for (const std::int64_t value : mine) EXPECT_EQ(value, c.size() - 1 + i);
        } else if (kind == 1) {
          std::vector<std::int64_t> all(count * static_cast<std::size_t>(c.size()), -1);
          c.all_gather(mine.data(), all.data(), count * sizeof(std::int64_t));
          for (std::size_t at = 0; at < all.size(); ++at) {
            EXPECT_EQ(all[at], static_cast<std::int64_t>(at / count) + i);
          }
        } else if (kind == 2) {
          c.broadcast(mine.data(), count * sizeof(std::int64_t), root % c.size());
          for (const std::int64_t value : mine) EXPECT_EQ(value, root % c.size() + i);
        } else {
          c.barrier();
        }
      }
    }).join();
  }
}

inline void expect_refusals(Communicator& c) {
  std::int32_t value = 0;
  EXPECT_THROW(c.all_reduce(&value, 1, DType::i32, Reduction::sum), CommunicationError);
  EXPECT_THROW(c.reduce_scatter(&value, &value, 1, DType::i32), CommunicationError);
  c.barrier();
}

// A rank that comes late is waited for.
inline void expect_waiting(Communicator& c) {
  for (int late = 0; late < c.size(); ++late) {
    if (c.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(30));
    std::int64_t value = c.rank();
    c.all_reduce(&value, 1, DType::i64, Reduction::sum);
    EXPECT_EQ(value, c.size() * (c.size() - 1) / 2);
  }
}

// Everything that leaves the communicator working.
inline void expect_conformance(Communicator& c) {
  ASSERT_GE(c.rank(), 0);
  ASSERT_LT(c.rank(), c.size());
  EXPECT_EQ(c.place().rank, c.rank());
  EXPECT_EQ(c.place().size, c.size());
  expect_reductions<float>(c);
  expect_reductions<double>(c);
  expect_reductions<std::int64_t>(c);
  expect_scattered_sums<float>(c);
  expect_scattered_sums<double>(c);
  expect_same_bits(c);
  expect_gathers_and_broadcasts(c);
  expect_parts(c);
  expect_order_and_threads(c);
  expect_waiting(c);
  expect_refusals(c);
}

// The last of a communicator. One rank gives up, from a thread of its own while it waits itself;
// the others wait for it in the whole, or in a part of it. All of them are stopped, and stay
// stopped.
inline void expect_abort(Communicator& c, bool in_part) {
  const auto part = c.split(0, 0);
  Communicator& waited = in_part ? *part : c;
  const auto expect_stopped = [&](Communicator& in) {
    std::vector<float> values(1000);
    try {
      in.all_reduce(values.data(), 1000, DType::f32, Reduction::sum);
      ADD_FAILURE() << "rank " << c.rank() << " was not stopped";
    } catch (const CommunicationError& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find("rank " + std::to_string(c.rank())), std::string::npos) << what;
      EXPECT_NE(what.find("the disk is full"), std::string::npos) << what;
    }
  };
  if (c.rank() == c.size() - 1) {
    std::thread fails([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      c.abort("the disk is full");
    });
    // Alone, nobody is missing: only a later call can be stopped.
    if (c.size() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(150));
    fails.join();
  }
  expect_stopped(waited);
  expect_stopped(c);
}

}  // namespace ftrain::conformance
