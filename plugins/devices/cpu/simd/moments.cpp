// Batch moments in one pass over memory.
#include <algorithm>

#include "plugins/devices/cpu/simd/norm_kernel.h"
#include "plugins/devices/cpu/simd/reduce.h"

namespace ftrain::cpu {
namespace {

class BatchMoments : public NormKernel {
 public:
  BatchMoments(const Node& node, const KernelEnvironment& environment)
      : NormKernel(node.input(0), node.attributes.integer("groups"), environment),
        tile_(norm_forward(environment.isa).moments),
        sums_(tiles_, groups_, 2),
        inverse_count_(1.0 / static_cast<double>(samples())) {}

  std::size_t scratch_bytes() const override { return sums_.scratch_bytes(); }

  void launch() override {
    double* const scratch = static_cast<double*>(scratch_);
    sums_.gather(scratch, threads(), [&](std::int64_t run, std::int64_t block, double* partial) {
      MomentsTile t;
      t.shape = shape_;
      t.x = read(0, tiles_.offset(run, block));
      t.sum = partial;
      t.square = partial + sums_.partial_stride();
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
  ChannelSums sums_;
  double inverse_count_;
};

std::string refuse(const Node& node, const KernelEnvironment&) {
  return refuse_tiles(node, {0}, {}, true);
}

}  // namespace

void add_moments_kernels(KernelList& list) {
  list.add({"batch_moments", "simd", 10, refuse, make_kernel<BatchMoments>});
}

}  // namespace ftrain::cpu
