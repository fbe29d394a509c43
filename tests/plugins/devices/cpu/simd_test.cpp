// Every Highway kernel on every target that the machine has, against the plain loops.
#include <gtest/gtest.h>

#include <cmath>

#include "ftrain/ops.h"
#include "plugins/devices/cpu/simd_cases.h"

namespace ftrain::cpu {
namespace {

const ops::BatchNorm options{1e-5, 2};

const Case cases[] = {
    {"add", [](Operands& o) { ops::add(o.like_x("x"), o.like_x("y")); }},
    {"mul", [](Operands& o) { ops::mul(o.like_x("x"), o.like_x("y")); }},
    {"scale", [](Operands& o) { ops::scale(o.like_x("x"), 0.37); }},
    {"scale_by", [](Operands& o) { ops::scale_by(o.like_x("x"), o.scalar("s")); }},
    {"relu", [](Operands& o) { ops::relu(o.like_x("x")); }},
    {"relu_grad", [](Operands& o) { ops::relu_grad(o.like_x("dy"), o.like_x("x")); }},
    {"prelu", [](Operands& o) { ops::prelu(o.like_x("x"), o.channels("slope")); }},
    {"prelu_grad",
     [](Operands& o) { ops::prelu_grad(o.like_x("dy"), o.like_x("x"), o.channels("slope")); }},
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
    {"batch_norm_fixed_input_grad",
     [](Operands& o) {
       ops::batch_norm_fixed_input_grad(o.like_x("dy"), o.channels("variance"), o.channels("gamma"),
                                        1e-5);
     }},
    {"batch_norm_sums",
     [](Operands& o) { ops::batch_norm_sums(o.like_x("dy"), o.like_x("x"), o.moments(), 1e-5); }},
    {"batch_norm_input_grad",
     [](Operands& o) {
       ops::batch_norm_input_grad(o.like_x("dy"), o.like_x("x"), o.moments(), o.channels("gamma"),
                                  {o.grouped("dgamma"), o.grouped("dbeta")}, options);
     }},
    {"norm_chain norm prelu",
     [](Operands& o) {
       ops::batch_norm_prelu(o.like_x("x"), o.moments(), o.affine(), o.channels("slope"), options);
     }},
    {"norm_chain norm add",
     [](Operands& o) {
       ops::batch_norm_add(o.like_x("x"), o.moments(), o.affine(), o.like_x("y"), options);
     }},
    {"norm_chain constant norm prelu",
     [](Operands& o) {
       ops::batch_norm_fixed_prelu(o.like_x("x"), o.fixed(), o.affine(), o.channels("slope"), 1e-5);
     }},
    {"norm_chain constant norm add",
     [](Operands& o) {
       ops::batch_norm_fixed_add(o.like_x("x"), o.fixed(), o.affine(), o.like_x("y"), 1e-5);
     }},
    {"norm_chain_grad prelu sums",
     [](Operands& o) {
       ops::batch_norm_prelu_sums(o.like_x("dy"), o.like_x("x"), o.moments(), o.affine(),
                                  o.channels("slope"), 1e-5);
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
    {"global_average_pool", [](Operands& o) { ops::global_average_pool(o.like_x("x")); }, true},
    {"global_average_pool_grad",
     [](Operands& o) {
       const Value dy = o.add("dy", {DType::f32, Shape{o.image.shape[0], o.image.shape[1]}});
       const Value dx = ops::global_average_pool_grad(dy, o.image.shape);
       o.graph.node(dx.node_index()).outputs[0].layout = o.image.layout;
     },
     true},
    {"squared_norm",
     [](Operands& o) {
       ops::squared_norm({o.like_x("x"), o.channels("s"), o.like_x("y")});
     }},
};

TEST_P(SimdTest, EqualsPlainLoops) {
  for (const Case& c : cases) {
    for (const Layout& layout : layouts) {
      if (c.images_only && layout.shape.rank() != 4) continue;
      for (const std::int64_t groups : {1, 2}) {
        SCOPED_TRACE(std::string(c.name) + " " + layout.shape.text() + ":" + layout.layout +
                     " groups " + std::to_string(groups));
        const auto expected =
            outputs_of(c.emit, {DType::f32, layout.shape, ""}, groups, "plain", environment);
        const TensorType image{DType::f32, layout.shape, layout.layout};
        const auto got = outputs_of(c.emit, image, groups, "simd", environment);
        ASSERT_EQ(got.size(), expected.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
          EXPECT_LT(relative_difference(got[i], expected[i]), 2e-6) << "output " << i;
        }
      }
    }
  }
}

TEST_P(SimdTest, InPlaceAndThreadsChangeNothing) {
  for (const Case& c : cases) {
    for (const Layout& layout : layouts) {
      if (c.images_only && layout.shape.rank() != 4) continue;
      SCOPED_TRACE(std::string(c.name) + " " + layout.shape.text() + ":" + layout.layout);
      const TensorType image{DType::f32, layout.shape, layout.layout};
      environment.threads = 1;
      const auto one = outputs_of(c.emit, image, 2, "simd", environment);
      environment.threads = 3;
      EXPECT_EQ(outputs_of(c.emit, image, 2, "simd", environment), one);
      EXPECT_EQ(outputs_of(c.emit, image, 2, "simd", environment, {.in_place = true}), one);
    }
  }
}

// Outputs too large for the caches are written around them.
TEST_P(SimdTest, LargeOutputsEqualPlainLoops) {
  const Shape shape{3, 32, 210, 211};
  for (const Case& c : cases) {
    const std::string name = c.name;
    if (name != "add" && name != "norm_chain norm prelu" && name != "norm_chain_grad input add")
      continue;
    const auto expected = outputs_of(c.emit, {DType::f32, shape, ""}, 1, "plain", environment);
    for (const char* layout : {"aBcd8b", "aBcd16b"}) {
      const auto got = outputs_of(c.emit, {DType::f32, shape, layout}, 1, "simd", environment);
      EXPECT_LT(relative_difference(got[0], expected[0]), 2e-6) << name;
    }
  }
}

TEST_P(SimdTest, MomentsAreSoundFarFromZero) {
  const Shape shape{8, 16, 33, 31};
  for (const float mean : {0.0f, 3.0f, 100.0f}) {
    Graph graph;
    const Value x = graph.input("x", {DType::f32, shape, "aBcd16b"});
    const ops::Moments moments = ops::batch_moments(x);
    const auto values = random_values(static_cast<std::size_t>(shape.elements()), 7, mean, 0.5f);
    GraphRunner runner(graph, kernels(), environment, "simd");
    runner.set(x, values);
    runner.run();
    const auto means = runner.get(moments.mean), variances = runner.get(moments.variance);
    const std::int64_t positions = shape[2] * shape[3];
    for (std::int64_t c = 0; c < shape[1]; ++c) {
      const auto over = [&](const auto& f) {
        double sum = 0;
        for (std::int64_t n = 0; n < shape[0]; ++n) {
          for (std::int64_t s = 0; s < positions; ++s) {
            sum += f(double(values[static_cast<std::size_t>((n * shape[1] + c) * positions + s)]));
          }
        }
        return sum / static_cast<double>(shape[0] * positions);
      };
      const double exact = over([](double v) { return v; });
      const double variance = over([&](double v) { return (v - exact) * (v - exact); });
      const auto at = static_cast<std::size_t>(c);
      EXPECT_NEAR(means[at], exact, 1e-6 * std::max(std::abs(exact), std::sqrt(variance)));
      EXPECT_NEAR(variances[at], variance, 1e-6 * variance) << "mean " << mean;
    }
  }
}

TEST_P(SimdTest, RefusesWhatItCannotDo) {
  const auto reason = [&](const TensorType& type) {
    Graph graph;
    const Value x = graph.input("x", type);
    ops::batch_moments(x);
    for (const KernelDef* def : kernels().of("batch_moments")) {
      if (def->name == "simd") return def->refuse(graph.node(1), environment);
    }
    return std::string("no such kernel");
  };
  EXPECT_EQ(reason({DType::f32, {2, 16, 4, 4}, "aBcd8b"}), "");
  EXPECT_EQ(reason({DType::f32, {2, 16}, ""}), "");
  EXPECT_NE(reason({DType::f32, {2, 16, 4, 4}, ""}), "");
  EXPECT_NE(reason({DType::f32, {2, 15}, ""}), "");
  EXPECT_NE(reason({DType::f64, {2, 16}, ""}), "");
}

INSTANTIATE_TEST_SUITE_P(Targets, SimdTest, testing::Values("scalar", "plain", "avx2", "avx512"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace ftrain::cpu
