// Which states of a checkpoint a rank writes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "ftrain/device/device.h"

namespace ftrain {

// A state, or rows of it, as a checkpoint holds it.
struct CheckpointPiece {
  std::string name;       // "NAME", or "NAME[first:last]" for rows
  const StateSpec* spec;  // the store's
  Shape shape;
  std::size_t first = 0;  // element of the rank's tensor

  std::size_t bytes() const;
};

// A rank's rows of what stands in rows (class centers and their slots), and its share of what all
// ranks hold alike. They go to two files, so that who continues on many ranks reads the shares and
// those rows that are its own.
struct CheckpointPart {
  std::vector<CheckpointPiece> share, rows;

  std::size_t bytes() const;
};

// Every rank divides alike. Rows are written by who owns them; where all ranks hold all rows, by
// the rank that would own them. The rest goes, the largest first, to who has least so far, and the
// running statistics to the first rank.
CheckpointPart checkpoint_part(const StateStore& store, int rank, int ranks);

}  // namespace ftrain
