// Batch moments in one pass over memory.
//
// Every few hundred rows are taken about a shift near their own mean (that of their first rows), in
// float, and added in double as moments about zero: no cancellation in float whatever the mean.
#include "plugins/devices/cpu/simd/dispatch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "plugins/devices/cpu/simd/moments.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "plugins/devices/cpu/simd/lanes-inl.h"
#include "plugins/devices/cpu/simd/reduce.h"

#ifndef FTRAIN_SIMD_MOMENTS_TILE
#define FTRAIN_SIMD_MOMENTS_TILE
namespace ftrain::cpu {
struct MomentsTile {
  const float* x = nullptr;
  double *sum = nullptr, *square = nullptr;  // [block], added to
  std::int64_t rows = 0, stride = 0, block = 0;
};
}  // namespace ftrain::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace ftrain::cpu {
namespace HWY_NAMESPACE {

template <std::size_t block>
void sum_rows(const MomentsTile& t) {
  using R = Row<block>;
  const typename R::D d;
  for (std::int64_t first = 0; first < t.rows; first += R::float_rows) {
    const std::int64_t rows = HWY_MIN(R::float_rows, t.rows - first);
    const float* const x = t.x + first * t.stride;

    const std::int64_t probe = HWY_MIN(rows, 8);
    typename R::V shift[R::parts];
    for (std::size_t k = 0; k < R::parts; ++k) {
      shift[k] = hn::Zero(d);
      for (std::int64_t row = 0; row < probe; ++row) {
        shift[k] = hn::Add(shift[k], hn::LoadU(d, x + row * t.stride + k * R::lanes));
      }
      shift[k] = hn::Mul(shift[k], hn::Set(d, 1.0f / static_cast<float>(probe)));
    }

    typename R::V sum[R::unroll][R::parts], square[R::unroll][R::parts];
    clear<block>(sum);
    clear<block>(square);
    const auto take = [&](std::int64_t row, std::size_t u) HWY_ATTR {
      for (std::size_t k = 0; k < R::parts; ++k) {
        const auto v = hn::Sub(hn::LoadU(d, x + row * t.stride + k * R::lanes), shift[k]);
        sum[u][k] = hn::Add(sum[u][k], v);
        square[u][k] = hn::MulAdd(v, v, square[u][k]);
      }
    };
    std::int64_t row = 0;
    for (; row + static_cast<std::int64_t>(R::unroll) <= rows; row += R::unroll) {
      for (std::size_t u = 0; u < R::unroll; ++u) take(row + static_cast<std::int64_t>(u), u);
    }
    for (; row < rows; ++row) take(row, 0);

    double total[block] = {}, squares[block] = {};
    HWY_ALIGN float about[block];
    add_to_doubles<block>(sum, total);
    add_to_doubles<block>(square, squares);
    for (std::size_t k = 0; k < R::parts; ++k) hn::Store(shift[k], d, about + k * R::lanes);
    const double count = static_cast<double>(rows);
    for (std::size_t i = 0; i < block; ++i) {
      const double m = static_cast<double>(about[i]);
      t.sum[i] += total[i] + count * m;
      t.square[i] += squares[i] + 2 * m * total[i] + count * m * m;
    }
  }
}

void moments_tile(const MomentsTile& t) {
  t.block == 16 ? sum_rows<16>(t) : sum_rows<8>(t);
}

}  // namespace HWY_NAMESPACE
}  // namespace ftrain::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ftrain::cpu {
namespace {

HWY_EXPORT(moments_tile);

class BatchMoments : public BoundKernel {
 public:
  BatchMoments(const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        tile_(FTRAIN_SIMD(moments_tile, environment.isa)),
        groups_(node.attributes.integer("groups")),
        tiles_(tiles_of(node.input(0), groups_)),
        sums_(tiles_, groups_, 2) {
    const std::int64_t count = node.input(0).shape.elements() / (groups_ * tiles_.channels());
    inverse_count_ = 1.0 / static_cast<double>(count);
  }

  std::size_t scratch_bytes() const override { return sums_.scratch_bytes(); }

  void launch() override {
    double* const scratch = static_cast<double*>(scratch_);
    sums_.gather(scratch, threads(), [&](std::int64_t run, std::int64_t block, double* partial) {
      MomentsTile t;
      t.x = input(0) + tiles_.offset(run, block);
      t.sum = partial;
      t.square = partial + sums_.partial_stride();
      t.rows = tiles_.rows;
      t.stride = tiles_.stride;
      t.block = tiles_.block;
      tile_(t);
    });
    for (std::int64_t i = 0; i < sums_.width(); ++i) {
      const double mean = scratch[i] * inverse_count_;
      const double square = scratch[sums_.width() + i] * inverse_count_;
      output(0)[i] = static_cast<float>(mean);
      output(1)[i] = static_cast<float>(std::max(0.0, square - mean * mean));
    }
  }

 private:
  void (*tile_)(const MomentsTile&);
  std::int64_t groups_;
  Tiles tiles_;
  ChannelSums sums_;
  double inverse_count_ = 0;
};

std::string refuse(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0}, {});
}

}  // namespace

void add_moments_kernels(KernelList& list) {
  list.add({"batch_moments", "simd", 10, refuse, make_kernel<BatchMoments>});
}

}  // namespace ftrain::cpu
#endif
