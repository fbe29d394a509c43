// Collectives that run beside a program's other kernels, one after another in the order of the
// graph: what must wait for them, found once and from memory alone.
//
// Two launches must keep their order when one writes memory that the other touches. That covers
// what a kernel reads of a collective as well as arena memory that one takes over from the other.
// For devices. Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "ftrain/device/device.h"
#include "ftrain/graph/graph.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// The memory that a launch reads, and what it writes.
struct FTRAIN_API Touched {
  struct Range {
    const char *begin = nullptr, *end = nullptr;
  };
  std::vector<Range> reads, writes;
  // Whether one of the two writes what the other touches.
  bool meets(const Touched& other) const;
};

// Where a value lies, views included.
using AddressOf = std::function<const char*(Value)>;

FTRAIN_API Touched touched_by(const Program& program, const Node& node, const AddressOf& address,
                              const char* arena);

struct BesideLaunch {
  Touched touched;
  bool beside = false;  // a collective beside the kernels
};
// By launch, in order: for how many of the collectives beside, counted from the first one, it has
// to wait. 0: for none that an earlier launch has not waited for. Theirs are 0.
FTRAIN_API std::vector<std::size_t> waits_of(const std::vector<BesideLaunch>& launches);

// What a plan's PlanRequest::busy_until says where collectives run beside: by node, the one before
// which it is done. For a collective the first kernel that uses what it or a collective behind it
// makes; itself for all others.
FTRAIN_API std::vector<std::int32_t> first_waits(const Graph& graph);

}  // namespace ftrain
