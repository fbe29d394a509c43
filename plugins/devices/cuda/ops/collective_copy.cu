#include "plugins/devices/cuda/ops/collective_copy.h"

#include <algorithm>

#include "plugins/devices/cuda/ops/kernels/collective_copy.cuh"
#include "plugins/devices/cuda/ops/kernels/copy.cuh"
#include "plugins/devices/cuda/ops/node_kernel.h"

namespace ftrain::cuda {
namespace {

template <bool packs>
void copy_all(const std::vector<PackedPiece>& pieces, std::uint32_t* packed,
              const Context& context) {
  for (std::size_t done = 0; done < pieces.size(); done += pieces_of_launch) {
    const std::size_t count = std::min<std::size_t>(pieces.size() - done, pieces_of_launch);
    PieceTable table{};
    table.count = static_cast<int>(count);
    table.first = pieces[done].first;
    for (std::size_t i = 0; i < count; ++i) {
      table.at[i] = pieces[done + i];
      table.words += table.at[i].words;
    }
    const Grid grid{.blocks = resident_blocks(table.words, context)};
    launch(copy_pieces<packs>, grid, context.stream, table, packed);
  }
}

// Eights by `eight` where both addresses allow, the rest one by one.
template <class From, class To, class Eights>
void convert_all(const From* from, To* to, std::int64_t count, const Context& context,
                 Eights eight) {
  const std::int64_t eights = aligned({from, to}) ? count / 8 : 0;
  if (eights > 0)
    launch(eight, {.blocks = resident_blocks(eights, context)}, context.stream, from, to, eights);
  const std::int64_t done = 8 * eights;
  if (done == count) return;
  launch(convert<From, To>, {.blocks = resident_blocks(count - done, context)}, context.stream,
         from + done, to + done, count - done);
}

}  // namespace

void pack(const std::vector<PackedPiece>& pieces, void* packed, const Context& context) {
  copy_all<true>(pieces, static_cast<std::uint32_t*>(packed), context);
}

void unpack(const std::vector<PackedPiece>& pieces, const void* packed, const Context& context) {
  copy_all<false>(pieces, static_cast<std::uint32_t*>(const_cast<void*>(packed)), context);
}

void to_wire(const float* from, __nv_bfloat16* to, std::int64_t count, const Context& context) {
  convert_all(from, to, count, context, narrow_floats<__nv_bfloat16>);
}

void from_wire(const __nv_bfloat16* from, float* to, std::int64_t count, const Context& context) {
  convert_all(from, to, count, context, widen_floats<__nv_bfloat16>);
}

}  // namespace ftrain::cuda
