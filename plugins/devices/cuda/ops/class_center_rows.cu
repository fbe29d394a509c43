#include "plugins/devices/cuda/ops/class_center_rows.h"

#include "plugins/devices/cuda/ops/kernels/stored_rows.cuh"
#include "plugins/devices/cuda/runtime/check.h"
#include "plugins/devices/cuda/runtime/launch.h"

namespace ftrain::cuda {
namespace {

constexpr unsigned threads = 256;

// A warp a row.
Grid grid_of_rows(std::int64_t count) {
  return {.blocks = {blocks_for(count * warp_size, threads)}, .threads = threads};
}

// Rows between where they are stored and one behind the other. `scatter`: the way back.
void move_sampled(std::int64_t count, std::size_t row_bytes, const std::int32_t* rows, char* stored,
                  char* packed, bool scatter, cudaStream_t stream) {
  const auto start = [&](auto unit) {
    using Unit = decltype(unit);
    launch(move_rows<Unit>, grid_of_rows(count), stream, count,
           static_cast<std::int64_t>(row_bytes / sizeof(Unit)), rows,
           reinterpret_cast<Unit*>(stored), reinterpret_cast<Unit*>(packed), scatter);
  };
  if (row_bytes % sizeof(uint4) == 0) return start(uint4{});
  row_bytes % sizeof(std::uint32_t) == 0 ? start(std::uint32_t{}) : start(std::uint16_t{});
}

}  // namespace

TileRows::TileRows(const Walk& walk, std::int64_t tensors, const Context& context)
    : walk_(walk), tensors_(tensors), context_(&context) {
  if (walk.host && context.copies != nullptr) order_ = std::make_shared<Order>();
}

TileRows::Space TileRows::take(Scratch& scratch) const {
  Space space;
  const std::int64_t elements = walk_.tile * walk_.width;
  if (walk_.bf16 || (walk_.sampled && !walk_.host)) space.widened = scratch.take<float>(elements);
  if (!walk_.host) return space;
  for (auto& place : space.staged) {
    for (std::int64_t t = 0; t < tensors_; ++t) {
      place.push_back(scratch.take<char>(elements * walk_.element_bytes()));
    }
  }
  return space;
}

cudaStream_t TileRows::Launch::copies() const {
  return of.order_ ? of.context_->copies : stream;
}

void TileRows::Launch::fetch(std::int64_t first) const {
  const Walk& walk = of.walk_;
  const std::int64_t count = std::min(walk.tile, walk.walked - first);
  const auto row_bytes = static_cast<std::size_t>(walk.width * walk.element_bytes());
  for (std::size_t t = 0; t < stored.size(); ++t) {
    auto* const from = static_cast<char*>(stored[t]);
    char* const to = space.staged[place(first)][t];
    if (rows != nullptr) {
      move_sampled(count, row_bytes, rows + first, from, to, false, copies());
    } else {
      check(
          cudaMemcpyAsync(to, from + static_cast<std::size_t>(first) * row_bytes,
                          static_cast<std::size_t>(count) * row_bytes, cudaMemcpyDefault, copies()),
          "fetching class centers");
    }
  }
  if (of.order_) of.order_->fetched[place(first)].record(copies());
}

void TileRows::Launch::begin() const {
  if (!of.walk_.host || of.walk_.walked == 0) return;
  if (of.order_) {
    of.order_->begun.record(stream);
    wait_for(copies(), of.order_->begun);
  }
  fetch(0);
}

const float* TileRows::Launch::centers(std::int64_t first, std::int64_t count,
                                       float* inverse) const {
  const Walk& walk = of.walk_;
  const std::int32_t* const sampled = rows != nullptr ? rows + first : nullptr;
  const void* from = stored[0];
  if (walk.host) {
    if (of.order_) wait_for(stream, of.order_->fetched[place(first)]);
    const std::int64_t next = first + walk.tile;
    if (next < walk.walked) {
      // The tile before stood there.
      if (of.order_ && first > 0) wait_for(copies(), of.order_->freed[place(next)]);
      fetch(next);
    }
    from = space.staged[place(first)][0];
  } else if (sampled == nullptr) {
    from = static_cast<const char*>(from) + first * walk.width * walk.element_bytes();
  }
  if (inverse != nullptr || space.widened != nullptr) {
    const auto start = [&](auto stored_as) {
      using T = decltype(stored_as);
      launch(prepare_rows<T>, grid_of_rows(count), stream, count, walk.width,
             walk.margin->normalized, static_cast<const T*>(from), sampled, walk.host, inverse,
             space.widened);
    };
    walk.bf16 ? start(__nv_bfloat16{}) : start(float{});
  }
  return space.widened != nullptr ? space.widened : static_cast<const float*>(from);
}

std::vector<void*> TileRows::Launch::tensors(std::int64_t first) const {
  if (!of.walk_.host) return {stored.begin(), stored.end()};
  const auto& staged = space.staged[place(first)];
  return {staged.begin(), staged.end()};
}

void TileRows::Launch::done(std::int64_t first, std::int64_t count, bool changed) const {
  const Walk& walk = of.walk_;
  if (!walk.host) return;
  const auto row_bytes = static_cast<std::size_t>(walk.width * walk.element_bytes());
  for (std::size_t t = 0; changed && t < stored.size(); ++t) {
    auto* const to = static_cast<char*>(stored[t]);
    char* const from = space.staged[place(first)][t];
    if (rows != nullptr) {
      move_sampled(count, row_bytes, rows + first, to, from, true, stream);
    } else {
      check(cudaMemcpyAsync(to + static_cast<std::size_t>(first) * row_bytes, from,
                            static_cast<std::size_t>(count) * row_bytes, cudaMemcpyDefault, stream),
            "storing class centers");
    }
  }
  if (of.order_) of.order_->freed[place(first)].record(stream);
}

}  // namespace ftrain::cuda
