#include "core/checkpoint/part.h"

#include <algorithm>

namespace ftrain {
namespace {

// The rows that this rank writes of a state in rows; none: no rows.
CheckpointPiece rows_of(const StateSpec& spec, int rank, int ranks) {
  const std::int64_t held = spec.type.shape[0];
  std::int64_t first = 0, count = held;
  if (held == spec.rows) {
    // Held whole: the first rows % ranks ranks take one more, as where classes are split. A single
    // row is thereby the first rank's, whether the others hold it too or not.
    const std::int64_t each = spec.rows / ranks, more = spec.rows % ranks;
    first = each * rank + std::min<std::int64_t>(rank, more);
    count = each + (rank < more ? 1 : 0);
  }
  std::vector<std::int64_t> extents = spec.type.shape.extents();
  extents[0] = count;
  const std::int64_t begin = spec.first_row + first;
  std::string name = spec.name;
  if (count != spec.rows) {
    name += "[" + std::to_string(begin) + ":" + std::to_string(begin + count) + "]";
  }
  const std::int64_t row = held == 0 ? 0 : spec.type.shape.elements() / held;
  return {std::move(name), &spec, Shape(std::move(extents)), static_cast<std::size_t>(first * row)};
}

std::size_t bytes_of(const std::vector<CheckpointPiece>& pieces) {
  std::size_t bytes = 0;
  for (const CheckpointPiece& piece : pieces) bytes += piece.bytes();
  return bytes;
}

}  // namespace

std::size_t CheckpointPiece::bytes() const {
  return static_cast<std::size_t>(shape.elements()) * size_of(spec->type.dtype);
}

std::size_t CheckpointPart::bytes() const {
  return bytes_of(share) + bytes_of(rows);
}

CheckpointPart checkpoint_part(const StateStore& store, int rank, int ranks) {
  CheckpointPart part;
  std::vector<const StateSpec*> alike;
  std::vector<std::size_t> load(static_cast<std::size_t>(ranks));
  for (const StateStore::Entry& entry : store.entries()) {
    const StateSpec& spec = entry.spec;
    if (spec.rows > 0) {
      CheckpointPiece piece = rows_of(spec, rank, ranks);
      if (piece.shape[0] > 0) part.rows.push_back(std::move(piece));
    } else if (spec.role == StateSpec::Role::statistic) {
      load[0] += spec.type.bytes();
      if (rank == 0) part.share.push_back({spec.name, &spec, spec.type.shape});
    } else {
      alike.push_back(&spec);
    }
  }
  std::sort(alike.begin(), alike.end(), [](const StateSpec* a, const StateSpec* b) {
    const std::size_t left = a->type.bytes(), right = b->type.bytes();
    return left != right ? left > right : a->name < b->name;
  });
  for (const StateSpec* spec : alike) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += spec->type.bytes();
    if (least - load.begin() == rank) part.share.push_back({spec->name, spec, spec->type.shape});
  }
  std::sort(part.share.begin(), part.share.end(),
            [](const CheckpointPiece& a, const CheckpointPiece& b) { return a.name < b.name; });
  return part;
}

}  // namespace ftrain
