// What a step of many ranks takes: numbers in, numbers out. docs/scaling.md has the formulas.
//
// Seconds, bytes, bytes a second and operations a second throughout. No function here keeps or
// reads anything else.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "ftrain/graph/opdef.h"

namespace ftrain::cluster {

// A wire as the alpha-beta model has it: a message of S bytes takes latency + S / bandwidth.
struct Link {
  double latency = 0;                                          // seconds
  double bandwidth = std::numeric_limits<double>::infinity();  // bytes a second, one way
  bool shared = false;  // one wire for all devices of a node, instead of one for each
};

struct Links {
  Link inside;   // between the devices of a node
  Link between;  // between nodes
};

// Where ranks are: `nodes` nodes with `each` ranks in every one.
struct Ranks {
  std::int64_t nodes = 1, each = 1;
  std::int64_t count() const { return nodes * each; }
};

// `count` ranks, nodes filled one after the other.
Ranks place(std::int64_t count, std::int64_t devices_of_node);

struct Exchange {
  Collective kind = Collective::all_reduce;
  double bytes = 0;       // the whole tensor: what a gather gives, what a scatter takes
  bool overlaps = false;  // a sum of gradients that nothing but the update waits for
};

// What one rank sends in a collective, at most.
struct Traffic {
  double inside = 0, between = 0;
  Traffic& operator+=(const Traffic& other);
};

double seconds(const Exchange& collective, const Ranks& ranks, const Links& links);
Traffic traffic(const Exchange& collective, const Ranks& ranks);

// What a rank computes in a step, in seconds.
struct Compute {
  double forward = 0, backward = 0;
  double centers = 0;  // class centers: both walks and their update
  double update = 0;   // of the backbone's parameters
  double total() const { return forward + backward + centers + update; }
};

// How ranks of a cluster run beside each other: nothing that a data sheet has.
struct Pace {
  double overlap = 1;   // share of overlapping collectives that hides behind the backward pass
  double slowdown = 0;  // share by which devices compute slower where they communicate too
  double wait = 0;  // seconds that ranks wait for each other a step, by doubling of their number
};

struct StepTime {
  double compute = 0;                   // with the slowdown
  double blocking = 0;                  // collectives that the step waits for
  double overlapping = 0, exposed = 0;  // the others: what they take, and what of it does not hide
  double waiting = 0;
  double data = 0;  // what the host needs longer than all this to give the batch
  double total() const { return compute + blocking + exposed + waiting + data; }
};

// `window`: the seconds of the backward pass that gradients can be summed behind.
// `host`: the seconds in which a node reads the batches of its ranks; 0: never the limit.
StepTime step_time(const Compute& compute, double window, const std::vector<Exchange>& collectives,
                   const Ranks& ranks, const Links& links, const Pace& pace, double host = 0);

Traffic traffic(const std::vector<Exchange>& collectives, const Ranks& ranks);

}  // namespace ftrain::cluster
