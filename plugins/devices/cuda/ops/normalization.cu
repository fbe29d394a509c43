// Batch norms of statistics that are given, alone or with the PReLU or addition behind them, and
// their gradients.
#include "plugins/devices/cuda/ops/norm_pass.h"

namespace ftrain::cuda {
namespace norms {
namespace {

struct BatchMoments {
  static constexpr std::string_view op = "batch_moments";
  static constexpr int priority = 10, moments = -1, sums = 2;
  static constexpr auto activations = at<0>;
  static constexpr auto made = at<>;
  static void run(const Bound& b) {
    b.passes.run<Keep, MomentSums>(b.arguments({}, {}), {b.in(0)}, nullptr);
    b.finish_moments(0);
  }
};

// x, mean, variance, gamma, beta (, slope or other) -> y
struct BatchNorm {
  static constexpr std::string_view op = "batch_norm";
  static constexpr int priority = 10, moments = 1, sums = 0;
  static constexpr auto activations = at<0>;
  static constexpr auto made = at<0>;
  static void run(const Bound& b) {
    b.passes.run<Normalize<After::nothing>, NoSums>(b.arguments(b.forward(1, b.eps, false), {}),
                                                    {b.in(0)}, b.out(0));
  }
};
struct BatchNormFixed : BatchNorm {
  static constexpr std::string_view op = "batch_norm_fixed";
};
struct BatchNormPRelu {
  static constexpr std::string_view stages = "norm prelu";
  static constexpr int moments = 1, sums = 0;
  static constexpr auto activations = at<0>;
  static constexpr auto made = at<0>;
  static void run(const Bound& b) {
    b.passes.run<Normalize<After::prelu>, NoSums>(b.arguments(b.forward(1, b.eps, true), {}),
                                                  {b.in(0)}, b.out(0));
  }
};
struct BatchNormFixedPRelu : BatchNormPRelu {
  static constexpr std::string_view stages = "constant norm prelu";
};
struct BatchNormAdd {
  static constexpr std::string_view stages = "norm add";
  static constexpr int moments = 1, sums = 0;
  static constexpr auto activations = at<0, 5>;
  static constexpr auto made = at<0>;
  static void run(const Bound& b) {
    b.passes.run<Normalize<After::add>, NoSums>(b.arguments(b.forward(1, b.eps, false), {}),
                                                {b.in(0), b.in(5)}, b.out(0));
  }
};
struct BatchNormFixedAdd : BatchNormAdd {
  static constexpr std::string_view stages = "constant norm add";
};

// dy, x, mean, variance -> dgamma, dbeta
struct BatchNormSums {
  static constexpr std::string_view op = "batch_norm_sums";
  static constexpr int priority = 10, moments = 2, sums = 2;
  static constexpr auto activations = at<0, 1>;
  static constexpr auto made = at<>;
  static void run(const Bound& b) {
    const PerChannel of{.mean = b.floats(2), .variance = b.floats(3), .eps = b.eps};
    b.passes.run<Keep, GradSums<false>>(b.arguments({}, of), {b.in(0), b.in(1)}, nullptr);
    b.finish_grad<false>(of, 0);
  }
};
// dy, x, mean, variance, gamma, beta, slope -> dgamma, dbeta, dslope
struct BatchNormPReluSums {
  static constexpr std::string_view stages = "prelu sums";
  static constexpr int moments = 2, sums = 3;
  static constexpr auto activations = at<0, 1>;
  static constexpr auto made = at<>;
  static void run(const Bound& b) {
    const PerChannel of = b.forward(2, b.eps, true);
    b.passes.run<Keep, GradSums<true>>(b.arguments({}, of), {b.in(0), b.in(1)}, nullptr);
    b.finish_grad<true>(of, 0);
  }
};

// dy, x, mean, variance, gamma, dgamma, dbeta (, other) -> dx
struct BatchNormInputGrad {
  static constexpr std::string_view op = "batch_norm_input_grad";
  static constexpr int priority = 10, moments = 2, sums = 0;
  static constexpr auto activations = at<0, 1>;
  static constexpr auto made = at<0>;
  static void run(const Bound& b) {
    b.passes.run<InputGrad<false, false>, NoSums>(b.arguments(operands(b), {}), {b.in(0), b.in(1)},
                                                  b.out(0));
  }
  static PerChannel operands(const Bound& b) {
    return {.mean = b.floats(2),
            .variance = b.floats(3),
            .gamma = b.floats(4),
            .gamma_gradient = b.floats(5),
            .beta_gradient = b.floats(6),
            .eps = b.eps,
            .share = b.share()};
  }
};
struct BatchNormInputGradAdd {
  static constexpr std::string_view stages = "input add";
  static constexpr int moments = 2, sums = 0;
  static constexpr auto activations = at<0, 1, 7>;
  static constexpr auto made = at<0>;
  static void run(const Bound& b) {
    b.passes.run<InputGrad<false, true>, NoSums>(b.arguments(BatchNormInputGrad::operands(b), {}),
                                                 {b.in(0), b.in(1), b.in(7)}, b.out(0));
  }
};
// dy, x, mean, variance, gamma, beta, slope, dgamma, dbeta -> dx
struct BatchNormPReluInputGrad {
  static constexpr std::string_view stages = "prelu input";
  static constexpr int moments = 2, sums = 0;
  static constexpr auto activations = at<0, 1>;
  static constexpr auto made = at<0>;
  static void run(const Bound& b) {
    PerChannel of = b.forward(2, b.eps, true);
    of.gamma_gradient = b.floats(7);
    of.beta_gradient = b.floats(8);
    of.share = b.share();
    b.passes.run<InputGrad<true, false>, NoSums>(b.arguments(of, {}), {b.in(0), b.in(1)}, b.out(0));
  }
};
// dy, variance, gamma -> dx
struct BatchNormFixedInputGrad {
  static constexpr std::string_view op = "batch_norm_fixed_input_grad";
  static constexpr int priority = 10, moments = -1, sums = 0;
  static constexpr auto activations = at<0>;
  static constexpr auto made = at<0>;
  static void run(const Bound& b) {
    const PerChannel of{.variance = b.floats(1), .gamma = b.floats(2), .eps = b.eps};
    b.passes.run<FixedInputGrad, NoSums>(b.arguments(of, {}), {b.in(0)}, b.out(0));
  }
};

}  // namespace
}  // namespace norms

void add_normalization_kernels(KernelList& list) {
  using namespace norms;
  add_norm<BatchMoments>(list);
  add_norm<BatchNorm>(list);
  add_norm<BatchNormFixed>(list);
  add_norm<BatchNormSums>(list);
  add_norm<BatchNormInputGrad>(list);
  add_norm<BatchNormFixedInputGrad>(list);
  add_chains<BatchNormPRelu, BatchNormFixedPRelu, BatchNormAdd, BatchNormFixedAdd>("norm_chain",
                                                                                   list);
  add_chains<BatchNormPReluSums, BatchNormInputGradAdd, BatchNormPReluInputGrad>("norm_chain_grad",
                                                                                 list);
}

}  // namespace ftrain::cuda
