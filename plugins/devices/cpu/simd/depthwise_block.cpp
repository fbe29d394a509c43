// A narrow 3x3 convolution with the batch norms and PReLUs on both sides of it.
//
// Goes block of channels by block of channels (several where they are small), in as many passes as
// there are statistics to wait for; between the passes of a slab its rows stay in the caches. Bytes
// over memory: forward reads x, writes z and y; backward reads dy, z and x, writes dx.
#include <omp.h>

#include <algorithm>

#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/simd/depthwise.h"
#include "plugins/devices/cpu/simd/norm_kernel.h"

namespace ftrain::cpu {
namespace {

constexpr std::int64_t slab_bytes = std::int64_t{2} << 20;

std::size_t aligned(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// One of the two norms: where its operands and results are, and its coefficients by channel.
struct Norm {
  const float *mean = nullptr, *variance = nullptr;
  const float *gamma = nullptr, *beta = nullptr, *slope = nullptr;
  float *factor = nullptr, *along = nullptr, *offset = nullptr;
  double eps = 0, count = 0;

  void set_factor(std::int64_t c) {
    factor[c] = static_cast<float>(norm_factor(gamma[c], variance[c], eps));
  }
};

class Block : public BoundKernel {
 public:
  Block(const TensorType& x, const TensorType& weight, const TensorType& z, std::int64_t sums,
        const Node& node, const KernelEnvironment& environment)
      : BoundKernel(environment),
        functions_(depthwise_functions(environment.isa)),
        forward_(norm_forward(environment.isa)),
        backward_(norm_backward(environment.isa)),
        shape_(depthwise_shape(x, weight, z, node.attributes.integer("stride"))),
        weight_(weight),
        samples_(x.shape[0]),
        channels_(x.shape[1]),
        blocks_(channels_ / shape_.block),
        sums_(sums),
        element_(static_cast<std::int64_t>(size_of(x.dtype))) {
    first_.eps = node.attributes.number("eps");
    second_.eps = node.attributes.number("second_eps");
    first_.count = static_cast<double>(samples_ * positions());
    second_.count = static_cast<double>(samples_ * out_positions());
    const std::int64_t bytes = samples_ * positions() * shape_.block * element_;
    const std::int64_t enough = 2 * environment.threads;  // tiles, that no thread waits
    together_ = std::clamp<std::int64_t>(
        std::max((slab_bytes + bytes - 1) / bytes, (enough + samples_ - 1) / samples_), 1, blocks_);
  }

  std::size_t scratch_bytes() const override {
    return ring_bytes() + weight_bytes() + coefficient_bytes() + partial_bytes() +
           static_cast<std::size_t>(shape_.weight_rows() * channels_) * sizeof(double);
  }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    BoundKernel::bind(inputs, outputs, scratch);
    char* at = static_cast<char*>(scratch) + ring_bytes();
    weights_ = reinterpret_cast<float*>(at);
    at += weight_bytes();
    float* coefficients = reinterpret_cast<float*>(at);
    for (Norm* const norm : {&first_, &second_}) {
      for (float** const values : {&norm->factor, &norm->along, &norm->offset}) {
        *values = coefficients;
        coefficients += channels_;
      }
    }
    at += coefficient_bytes();
    partial_ = reinterpret_cast<double*>(at);
    weight_sums_ = reinterpret_cast<double*>(at + partial_bytes());
  }

 protected:
  // A tile of the slab at work.
  struct Place {
    std::int64_t block, channel;
    std::int64_t x, z;  // elements before the tile, in images of x's and of z's extents
    double* sums;       // [sums_][block], of this tile
  };

  std::int64_t positions() const { return shape_.height * shape_.width; }
  std::int64_t out_positions() const { return shape_.out_height * shape_.out_width; }

  const void* read(std::size_t i, std::int64_t offset) const {
    return static_cast<const char*>(inputs_[i]) + offset * element_;
  }
  void* written(std::size_t i, std::int64_t offset) const {
    return static_cast<char*>(outputs_[i]) + offset * element_;
  }

  template <class F>
  void each_slab(const F& f) const {
    for (std::int64_t first = 0; first < blocks_; first += together_) {
      f(first, std::min(together_, blocks_ - first));
    }
  }

  // One pass over a slab. The same thread has the same tiles in each pass.
  template <class F>
  void pass(std::int64_t first, std::int64_t count, const F& f) const {
    parallel_for(samples_ * count, threads(), [&](std::int64_t i) {
      const std::int64_t block = first + i % count, tile = i / count * blocks_ + block;
      f(Place{block, block * shape_.block, tile * positions() * shape_.block,
              tile * out_positions() * shape_.block, partial_ + i * sums_ * shape_.block});
    });
  }

  // The same, where each tile adds to sums of its own; then total(channel, sums), whose numbers
  // are shape_.block apart, in the order of the samples.
  template <class F, class Total>
  void pass_with_sums(std::int64_t first, std::int64_t count, const F& f,
                      const Total& total) const {
    const std::int64_t size = sums_ * shape_.block;
    pass(first, count, [&](const Place& place) {
      std::fill_n(place.sums, size, 0.0);
      f(place);
    });
    for (std::int64_t b = 0; b < count; ++b) {
      double* const all = partial_ + b * size;
      for (std::int64_t n = 1; n < samples_; ++n) {
        const double* const more = all + n * count * size;
        for (std::int64_t i = 0; i < size; ++i) all[i] += more[i];
      }
      for (std::int64_t lane = 0; lane < shape_.block; ++lane) {
        total((first + b) * shape_.block + lane, all + lane);
      }
    }
  }

  TileShape rows(std::int64_t positions) const {
    return {positions, shape_.block, shape_.block, shape_.bf16};
  }

  DepthwiseTile tile(const Place& place) const {
    DepthwiseTile t;
    t.shape = shape_;
    t.weight = weights_ + place.block * shape_.weight_rows() * shape_.block;
    t.scratch = static_cast<float*>(scratch_) +
                static_cast<std::size_t>(omp_get_thread_num()) * shape_.scratch_floats();
    return t;
  }

  static DepthwiseRows through(const Norm& norm, Through how, std::int64_t channel, const void* x) {
    DepthwiseRows rows;
    rows.x = x;
    rows.through = how;
    rows.mean = norm.mean + channel;
    rows.factor = norm.factor + channel;
    rows.beta = norm.beta + channel;
    rows.slope = norm.slope + channel;
    rows.along = norm.along + channel;
    rows.offset = norm.offset + channel;
    return rows;
  }

  DepthwiseFunctions functions_;
  NormForward forward_;
  NormBackward backward_;
  DepthwiseShape shape_;
  TensorType weight_;
  std::int64_t samples_, channels_, blocks_, sums_, element_, together_ = 1;
  Norm first_, second_;
  float* weights_ = nullptr;
  double *partial_ = nullptr, *weight_sums_ = nullptr;

 private:
  std::size_t ring_bytes() const {
    return static_cast<std::size_t>(threads()) * shape_.scratch_floats() * sizeof(float);
  }
  std::size_t weight_bytes() const {
    return aligned(static_cast<std::size_t>(shape_.weight_rows() * channels_) * sizeof(float));
  }
  std::size_t coefficient_bytes() const {
    return aligned(static_cast<std::size_t>(6 * channels_) * sizeof(float));
  }
  std::size_t partial_bytes() const {
    return aligned(static_cast<std::size_t>(samples_ * together_ * sums_ * shape_.block) *
                   sizeof(double));
  }
};

// x, gamma, beta, slope, weight, gamma, beta, slope -> y, mean, variance, z, mean, variance.
class Forward final : public Block {
 public:
  Forward(const Node& node, const KernelEnvironment& environment)
      : Block(node.input(0), node.input(4), node.outputs[3], 2, node, environment),
        bytes_(node.outputs[0].bytes()) {}

  void launch() override {
    place(first_, 1, 1);
    place(second_, 5, 4);
    arrange_depthwise_weight(shape_, weight_, input(4), false, weights_);
    const bool stream = writes_around_caches(bytes_);
    each_slab([&](std::int64_t first, std::int64_t count) {
      pass_with_sums(
          first, count, [&](const Place& p) { moments(read(0, p.x), rows(positions()), p); },
          [&](std::int64_t c, const double* sums) { finish(first_, 1, c, sums); });
      pass_with_sums(
          first, count,
          [&](const Place& p) {
            DepthwiseTile t = tile(p);
            t.x = through(first_, Through::norm_prelu, p.channel, read(0, p.x));
            t.y = written(3, p.z);
            functions_.forward(t);
            moments(t.y, rows(out_positions()), p);
          },
          [&](std::int64_t c, const double* sums) { finish(second_, 4, c, sums); });
      pass(first, count, [&](const Place& p) {
        NormTile t;
        t.shape = rows(out_positions());
        t.x = written(3, p.z);
        t.y = written(0, p.z);
        t.mean = second_.mean + p.channel;
        t.factor = second_.factor + p.channel;
        t.beta = second_.beta + p.channel;
        t.slope = second_.slope + p.channel;
        t.after = After::prelu;
        t.stream = stream;
        forward_.normalize(t);
      });
    });
  }

 private:
  void place(Norm& norm, std::size_t input, std::size_t output) {
    norm.gamma = this->input(input);
    norm.beta = this->input(input + 1);
    norm.slope = this->input(input + 2);
    norm.mean = this->output(output);
    norm.variance = this->output(output + 1);
  }

  void moments(const void* x, const TileShape& shape, const Place& place) const {
    MomentsTile t;
    t.shape = shape;
    t.x = x;
    t.sum = place.sums;
    t.square = place.sums + shape_.block;
    forward_.moments(t);
  }

  void finish(Norm& norm, std::size_t output, std::int64_t c, const double* sums) {
    const double mean = sums[0] / norm.count;
    this->output(output)[c] = static_cast<float>(mean);
    this->output(output + 1)[c] =
        static_cast<float>(std::max(0.0, sums[shape_.block] / norm.count - mean * mean));
    norm.set_factor(c);
  }

  std::size_t bytes_;
};

// dy, x, mean, variance, gamma, beta, slope, weight, z, mean, variance, gamma, beta, slope
//   -> dx, dgamma, dbeta, dslope, dweight, dgamma, dbeta, dslope.
class Backward final : public Block {
 public:
  Backward(const Node& node, const KernelEnvironment& environment)
      : Block(node.input(1), node.input(7), node.input(8), 3 + weight_rows(node), node,
              environment),
        dweight_(node.outputs[4]) {}

  // With stride 1 a tile of dx follows its rows of dy.
  int overwrites() const override { return shape_.stride == 1 ? 0 : -1; }

  void launch() override {
    place(first_, 2);
    place(second_, 9);
    arrange_depthwise_weight(shape_, weight_, input(7), true, weights_);
    each_slab([&](std::int64_t first, std::int64_t count) {
      pass_with_sums(
          first, count,
          [&](const Place& p) {
            sum(second_, read(0, p.z), read(8, p.z), rows(out_positions()), p);
          },
          [&](std::int64_t c, const double* sums) { finish(second_, 5, c, sums); });
      pass_with_sums(
          first, count,
          [&](const Place& p) {
            DepthwiseTile t = tile(p);
            t.dy = through(second_, Through::norm_prelu_grad, p.channel, read(0, p.z));
            t.dy.at = read(8, p.z);
            t.x = through(first_, Through::norm_prelu, p.channel, read(1, p.x));
            t.dx = written(0, p.x);
            t.sums = p.sums + 3 * shape_.block;
            t.sums_stride = shape_.block;
            functions_.backward(t);
            sum(first_, t.dx, t.x.x, rows(positions()), p);
          },
          [&](std::int64_t c, const double* sums) {
            finish(first_, 1, c, sums);
            for (std::int64_t w = 0; w < shape_.weight_rows(); ++w) {
              weight_sums_[w * channels_ + c] = sums[(3 + w) * shape_.block];
            }
          });
      pass(first, count, [&](const Place& p) {
        NormGradTile t;
        t.shape = rows(positions());
        t.dy = t.dx = written(0, p.x);
        t.x = read(1, p.x);
        t.mean = first_.mean + p.channel;
        t.factor = first_.factor + p.channel;
        t.beta = first_.beta + p.channel;
        t.slope = first_.slope + p.channel;
        t.along = first_.along + p.channel;
        t.offset = first_.offset + p.channel;
        t.after = After::prelu;
        backward_.gradient(t);
      });
    });
    store_depthwise_gradient(shape_, dweight_, weight_sums_, channels_, output(4));
  }

 private:
  static std::int64_t weight_rows(const Node& node) {
    return depthwise_taps * node.input(7).shape[1];
  }

  void place(Norm& norm, std::size_t first) {
    norm.mean = input(first);
    norm.variance = input(first + 1);
    norm.gamma = input(first + 2);
    norm.beta = input(first + 3);
    norm.slope = input(first + 4);
    for (std::int64_t c = 0; c < channels_; ++c) norm.set_factor(c);
  }

  void sum(const Norm& norm, const void* dy, const void* x, const TileShape& shape,
           const Place& place) const {
    NormSumsTile t;
    t.shape = shape;
    t.dy = dy;
    t.x = x;
    t.mean = norm.mean + place.channel;
    t.factor = norm.factor + place.channel;
    t.beta = norm.beta + place.channel;
    t.slope = norm.slope + place.channel;
    t.sum = place.sums;
    t.product = place.sums + shape_.block;
    t.slope_sum = place.sums + 2 * shape_.block;
    t.prelu = true;
    backward_.sums(t);
  }

  // dgamma, dbeta, dslope are outputs `output` and the next two.
  void finish(Norm& norm, std::size_t output, std::int64_t c, const double* sums) {
    const double inverse = 1 / std::sqrt(norm.variance[c] + norm.eps);
    const double dgamma = sums[shape_.block] * inverse, dbeta = sums[0];
    this->output(output)[c] = static_cast<float>(dgamma);
    this->output(output + 1)[c] = static_cast<float>(dbeta);
    this->output(output + 2)[c] = static_cast<float>(sums[2 * shape_.block]);
    const double factor = norm.gamma[c] * inverse;
    norm.along[c] = static_cast<float>(factor * inverse * dgamma / norm.count);
    norm.offset[c] = static_cast<float>(factor * dbeta / norm.count);
  }

  TensorType dweight_;
};

std::string refuse_block(const Node& node, const TensorType& x, const TensorType& weight,
                         const TensorType& z) {
  return refuse_depthwise(x, weight, z, node.attributes.integer("stride"),
                          node.attributes.integer("padding"));
}
std::string refuse_forward(const Node& node, const KernelEnvironment&) {
  return refuse_block(node, node.input(0), node.input(4), node.outputs[3]);
}
std::string refuse_backward(const Node& node, const KernelEnvironment&) {
  for (const TensorType& weight : {node.input(7), node.outputs[4]}) {
    const std::string reason = refuse_block(node, node.input(1), weight, node.input(8));
    if (!reason.empty()) return reason;
  }
  return {};
}

}  // namespace

void add_depthwise_block_kernels(KernelList& list) {
  list.add({"depthwise_block", "slabs", 10, refuse_forward, make_kernel<Forward>});
  list.add({"depthwise_block_grad", "slabs", 10, refuse_backward, make_kernel<Backward>});
}

}  // namespace ftrain::cpu
