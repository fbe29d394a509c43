#include "plugins/devices/cuda/tile_product.h"

#include "plugins/devices/cuda/kernels/tile_product.cuh"
#include "plugins/devices/cuda/launch.h"

namespace ftrain::cuda {

void tile_product(const Product& p, cudaStream_t stream) {
  if (p.m == 0 || p.n == 0) return;
  const auto tiles = [](std::int64_t count) {
    return static_cast<unsigned>((count + ProductTile::side - 1) / ProductTile::side);
  };
  const Grid grid{.blocks = {tiles(p.m), tiles(p.n), static_cast<unsigned>(p.splits)},
                  .threads = ProductTile::threads,
                  .shared = ProductTile::shared_bytes};
  const std::int64_t run = (p.k + p.splits - 1) / p.splits;
  const auto start = [&](auto kernel) {
    launch(kernel, grid, stream, p.m, p.n, p.k, run, p.a, p.b, p.c, p.add);
  };
  if (p.a_transposed) {
    p.b_transposed ? start(multiply_tiles<true, true>) : start(multiply_tiles<true, false>);
  } else {
    p.b_transposed ? start(multiply_tiles<false, true>) : start(multiply_tiles<false, false>);
  }
}

}  // namespace ftrain::cuda
