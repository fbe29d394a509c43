// The batch-norm family of Highway kernels: the ops that take several passes at once, against their
// decompositions; and all of it in bf16, against plain loops in f32 on the same (rounded) operands.
#include <gtest/gtest.h>

#include <cmath>

#include "core/ops/norm_chain.h"
#include "plugins/devices/cpu/simd_cases.h"

namespace ftrain::cpu {
namespace {

struct Case {
  const char* name;
  void (*emit)(Operands& o);
};

ops::NormOperands norm(Operands& o) {
  return {.x = o.like_x("x"),
          .moments = o.moments(),
          .gamma = o.channels("gamma"),
          .beta = {},
          .slope = {},
          .eps = 1e-5};
}

ops::NormOperands norm_prelu(Operands& o) {
  ops::NormOperands operands = norm(o);
  operands.beta = o.channels("beta");
  operands.slope = o.channels("slope");
  return operands;
}

const Case whole[] = {
    {"norm_chain statistics norm",
     [](Operands& o) {
       ops::batch_norm_whole(o.like_x("x"), o.affine(), {1e-5, o.groups});
     }},
    {"norm_chain statistics norm prelu",
     [](Operands& o) {
       ops::batch_norm_whole_prelu(o.like_x("x"), o.affine(), o.channels("slope"),
                                   {1e-5, o.groups});
     }},
    {"norm_chain statistics norm add",
     [](Operands& o) {
       ops::batch_norm_whole_add(o.like_x("x"), o.affine(), o.like_x("y"), {1e-5, o.groups});
     }},
    {"norm_chain statistics norm prelu statistics norm",
     [](Operands& o) {
       ops::batch_norm_prelu_norm(o.like_x("x"), o.affine(), o.channels("slope"), o.affine(),
                                  {1e-5, o.groups}, 2e-5);
     }},
    {"norm_chain statistics norm add statistics norm",
     [](Operands& o) {
       ops::batch_norm_add_norm(o.like_x("x"), o.affine(), o.like_x("y"), o.affine(),
                                {1e-5, o.groups}, 2e-5);
     }},
    {"norm_chain_grad sums input",
     [](Operands& o) {
       const Value dy = o.like_x("dy");
       ops::batch_norm_grad(dy, norm(o));
     }},
    {"norm_chain_grad prelu sums input",
     [](Operands& o) {
       const Value dy = o.like_x("dy");
       ops::batch_norm_grad(dy, norm_prelu(o));
     }},
    {"norm_chain_grad sums input add",
     [](Operands& o) {
       const Value dy = o.like_x("dy");
       ops::batch_norm_grad_add(dy, norm(o), o.like_x("other"));
     }},
    {"norm_chain_grad add sums input",
     [](Operands& o) {
       const Value a = o.like_x("a"), b = o.like_x("b");
       ops::add_batch_norm_grad(a, b, norm(o));
     }},
    {"norm_chain_grad add prelu sums input",
     [](Operands& o) {
       const Value a = o.like_x("a"), b = o.like_x("b");
       ops::add_batch_norm_grad(a, b, norm_prelu(o));
     }},
    {"norm_chain_grad norm add sums input",
     [](Operands& o) {
       const Value dz = o.like_x("dz"), other = o.like_x("other");
       ops::batch_norm_grad_pair(dz, norm(o), other, norm(o));
     }},
    {"norm_chain_grad norm add prelu sums input",
     [](Operands& o) {
       const Value dz = o.like_x("dz"), other = o.like_x("other");
       ops::batch_norm_grad_pair(dz, norm(o), other, norm_prelu(o));
     }},
};

// Those of one pass, for bf16.
const ops::BatchNorm options{1e-5, 2};
const Case plain[] = {
    {"batch_moments", [](Operands& o) { ops::batch_moments(o.like_x("x"), o.groups); }},
    {"batch_norm",
     [](Operands& o) {
       const auto [gamma, beta] = o.affine();
       ops::batch_norm(o.like_x("x"), o.moments(), gamma, beta, options);
     }},
    {"batch_norm_fixed",
     [](Operands& o) {
       const auto [gamma, beta] = o.affine();
       const auto [mean, variance] = o.fixed();
       ops::batch_norm_fixed(o.like_x("x"), mean, variance, gamma, beta, 1e-5);
     }},
    {"norm_chain norm prelu",
     [](Operands& o) {
       ops::batch_norm_prelu(o.like_x("x"), o.moments(), o.affine(), o.channels("slope"), options);
     }},
    {"norm_chain norm add",
     [](Operands& o) {
       ops::batch_norm_add(o.like_x("x"), o.moments(), o.affine(), o.like_x("y"), options);
     }},
    {"norm_chain_grad prelu sums",
     [](Operands& o) {
       ops::batch_norm_prelu_sums(o.like_x("dy"), o.like_x("x"), o.moments(), o.affine(),
                                  o.channels("slope"), 1e-5);
     }},
    {"batch_norm_input_grad",
     [](Operands& o) {
       ops::batch_norm_input_grad(o.like_x("dy"), o.like_x("x"), o.moments(), o.channels("gamma"),
                                  {o.grouped("dgamma"), o.grouped("dbeta")}, options);
     }},
    {"norm_chain_grad prelu input",
     [](Operands& o) {
       ops::batch_norm_prelu_input_grad(o.like_x("dy"), o.like_x("x"), o.moments(), o.affine(),
                                        o.channels("slope"),
                                        {o.grouped("dgamma"), o.grouped("dbeta")}, options);
     }},
    {"norm_chain_grad input add",
     [](Operands& o) {
       ops::batch_norm_input_grad_add(
           o.like_x("dy"), o.like_x("x"), o.moments(), o.channels("gamma"),
           {o.grouped("dgamma"), o.grouped("dbeta")}, o.like_x("y"), options);
     }},
};

std::string traced(const Case& c, const Layout& layout, std::int64_t groups) {
  return std::string(c.name) + " " + layout.shape.text() + ":" + layout.layout + " groups " +
         std::to_string(groups);
}

// Slabs of more than one tile a part, and of an odd number of tiles.
const Layout many_samples[] = {{{38, 16, 3, 2}, "aBcd8b"}, {{34, 16, 2, 2}, "aBcd16b"}};

template <class F>
void each_layout(const F& f) {
  for (const Layout& layout : layouts) f(layout);
  for (const Layout& layout : many_samples) f(layout);
}

class NormsTest : public SimdTest {};

TEST_P(NormsTest, WholeOnesEqualTheirTwins) {
  for (const Case& c : whole) {
    each_layout([&](const Layout& layout) {
      for (const std::int64_t groups : {1, 2}) {
        SCOPED_TRACE(traced(c, layout, groups));
        const auto expected =
            outputs_of(c.emit, {DType::f32, layout.shape, ""}, groups, "plain", environment);
        const auto got = outputs_of(c.emit, {DType::f32, layout.shape, layout.layout}, groups,
                                    "simd", environment);
        ASSERT_EQ(got.size(), expected.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
          EXPECT_LT(relative_difference(got[i], expected[i]), 6e-6) << "output " << i;
        }
      }
    });
  }
}

TEST_P(NormsTest, InPlaceAndThreadsChangeNothing) {
  for (const Case& c : whole) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      each_layout([&](const Layout& layout) {
        SCOPED_TRACE(traced(c, layout, 2));
        const TensorType image{dtype, layout.shape, layout.layout};
        environment.threads = 1;
        const auto one = outputs_of(c.emit, image, 2, "simd", environment);
        for (const int threads : {2, 3}) {
          environment.threads = threads;
          EXPECT_EQ(outputs_of(c.emit, image, 2, "simd", environment), one);
        }
        EXPECT_EQ(outputs_of(c.emit, image, 2, "simd", environment, {.in_place = true}), one);
      });
    }
  }
}

// Results past the caches, and slabs that do not fit them.
TEST_P(NormsTest, LargeOnesEqualTheirTwins) {
  const Shape shape{3, 16, 331, 307};
  for (const Case& c : whole) {
    const std::string name = c.name;
    if (name != "norm_chain statistics norm add statistics norm" &&
        name != "norm_chain_grad norm add prelu sums input")
      continue;
    SCOPED_TRACE(name);
    static std::map<std::string, std::vector<std::vector<float>>> known;
    auto& expected = known[name];
    if (expected.empty()) {
      expected = outputs_of(c.emit, {DType::f32, shape, ""}, 1, "plain", environment);
    }
    const auto got = outputs_of(c.emit, {DType::f32, shape, "aBcd16b"}, 1, "simd", environment);
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_LT(relative_difference(got[i], expected[i]), 2e-5) << "output " << i;
    }
  }
}

// The root of the mean square of the differences, in units of the reference's.
double mean_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double differences = 0, squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    differences += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
    squares += double(b[i]) * double(b[i]);
  }
  return std::sqrt(differences / squares);
}

// Activations have 8 bits after rounding; per-channel results are sums in f32 of those.
void expect_near_in_bf16(const Case& c, const Layout& layout,
                         const KernelEnvironment& environment) {
  for (const std::int64_t groups : {1, 2}) {
    SCOPED_TRACE(traced(c, layout, groups));
    const auto expected = outputs_of(c.emit, {DType::f32, layout.shape, ""}, groups, "plain",
                                     environment, {.in_place = false, .round = true});
    const auto got =
        outputs_of(c.emit, {DType::bf16, layout.shape, layout.layout}, groups, "simd", environment);
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_LT(mean_difference(got[i], expected[i]), 6e-3) << "output " << i;
    }
  }
}

TEST_P(NormsTest, InBf16AllEqualPlainLoopsToRounding) {
  for (const Case& c : whole) {
    each_layout([&](const Layout& layout) { expect_near_in_bf16(c, layout, environment); });
  }
  for (const Case& c : plain) {
    each_layout([&](const Layout& layout) { expect_near_in_bf16(c, layout, environment); });
  }
}

TEST_P(NormsTest, LargeOnesInBf16EqualThoseInF32) {
  const Shape shape{6, 16, 331, 307};
  for (const Case& c : whole) {
    const std::string name = c.name;
    if (name != "norm_chain statistics norm") continue;
    for (const char* layout : {"aBcd8b", "aBcd16b"}) {
      SCOPED_TRACE(layout);
      const auto expected = outputs_of(c.emit, {DType::f32, shape, layout}, 1, "simd", environment,
                                       {.in_place = false, .round = true});
      const auto got = outputs_of(c.emit, {DType::bf16, shape, layout}, 1, "simd", environment);
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_LT(mean_difference(got[i], expected[i]), 6e-3) << "output " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, NormsTest, testing::Values("scalar", "plain", "avx2", "avx512"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace ftrain::cpu
