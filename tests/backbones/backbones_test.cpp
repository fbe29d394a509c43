// Backbones: sizes and parameter names as arcface_torch has them, other inputs, tails, keys.
#include <gmock/gmock.h>

#include <cmath>
#include <set>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/model/backbone.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

using testing::HasSubstr;

struct Made {
  Graph graph;
  Value embedding;

  Made(const std::string& plugin, const std::string& keys, Shape image = {4, 3, 112, 112},
       bool training = true) {
    static Registry registry({FTRAIN_PLUGINS});
    const auto backbone =
        registry.create<Backbone>(Job::parse("[backbone]\nplugin = \"" + plugin + "\"\n" + keys));
    const Value step = graph.input("step", {DType::i64, {}});
    const Value x = graph.input("image", {DType::f32, std::move(image)});
    Build build{.graph = graph, .training = training};
    build.step = step;
    embedding = backbone->forward(Scope(build), x);
    for (const auto& write : build.at_end) write(ops::constant(graph, 1));
  }

  std::int64_t parameters() const {
    std::int64_t count = 0;
    for (const Graph::State& s : graph.states()) {
      if (s.spec.role == StateSpec::Role::parameter) count += s.value.shape().elements();
    }
    return count;
  }
  std::set<std::string> names() const {
    std::set<std::string> all;
    for (const Graph::State& s : graph.states()) all.insert(s.spec.name);
    return all;
  }
  std::int64_t count(std::string_view op) const {
    std::int64_t found = 0;
    for (std::int32_t i = 0; i < graph.size(); ++i) found += graph.node(i).op->name == op;
    return found;
  }
  const StateSpec& spec(const std::string& name) const {
    const Value value = graph.find_state(name);
    if (!value.valid()) throw std::runtime_error("no state " + name);
    return graph.state_of(value)->spec;
  }
};

// The published sizes; entries counts arcface_torch's state_dict, of which each batch norm's
// num_batches_tracked has no counterpart here.
struct Published {
  const char *name, *plugin, *keys;
  std::int64_t parameters, entries;
};
void PrintTo(const Published& p, std::ostream* out) {
  *out << p.name;
}

class PublishedSizes : public testing::TestWithParam<Published> {};
INSTANTIATE_TEST_SUITE_P(
    Networks, PublishedSizes,
    testing::Values(Published{"r18", "iresnet", "depth = 18", 24025600, 187},
                    Published{"r34", "iresnet", "depth = 34", 34139328, 331},
                    Published{"r50", "iresnet", "depth = 50", 43590848, 475},
                    Published{"r100", "iresnet", "depth = 100", 65156160, 925},
                    Published{"r200", "iresnet", "depth = 200", 118833920, 1807},
                    Published{"mbf", "mobilefacenet", "", 2059520, 333},
                    Published{"mbf_large", "mobilefacenet", "scale = 4\nblocks = [2, 8, 12, 4]",
                              6314880, 606}));

TEST_P(PublishedSizes, AreMatched) {
  const Made made(GetParam().plugin, GetParam().keys);
  EXPECT_EQ(made.embedding.shape(), (Shape{4, 512}));
  EXPECT_EQ(made.parameters(), GetParam().parameters);
  std::int64_t norms = 0;
  for (const std::string& name : made.names()) norms += name.ends_with("running_mean");
  EXPECT_EQ(static_cast<std::int64_t>(made.graph.states().size()), GetParam().entries - norms);
  EXPECT_EQ(made.count("batch_norm"), norms);
  EXPECT_EQ(made.count("update_running"), norms);
}

TEST(IResNet, NamesItsParametersAsArcFaceTorch) {
  const Made made("iresnet", "depth = 18");
  const std::set<std::string> names = made.names();
  for (const char* name :
       {"conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var",
        "prelu.weight", "layer1.0.bn1.weight", "layer1.0.conv1.weight", "layer1.0.prelu.weight",
        "layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_var",
        "layer4.1.conv2.weight", "layer4.1.bn3.bias", "bn2.weight", "fc.weight", "fc.bias",
        "features.weight", "features.bias", "features.running_mean"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_FALSE(names.contains("layer1.1.downsample.0.weight"));
  EXPECT_EQ(made.spec("conv1.weight").type.shape, (Shape{64, 3, 3, 3}));
  EXPECT_EQ(made.spec("layer2.0.downsample.0.weight").type.shape, (Shape{128, 64, 1, 1}));
  EXPECT_EQ(made.spec("fc.weight").type.shape, (Shape{512, 25088}));
}

TEST(IResNet, BeginsAsArcFaceTorch) {
  const Made made("iresnet", "depth = 18");
  const Initializer conv = made.spec("layer3.1.conv2.weight").initializer;
  EXPECT_EQ(conv.kind, Initializer::Kind::normal);
  EXPECT_EQ(conv.b, 0.1);
  const Initializer fc = made.spec("fc.bias").initializer;
  EXPECT_EQ(fc.kind, Initializer::Kind::uniform);
  EXPECT_DOUBLE_EQ(fc.b, 1 / std::sqrt(25088.0));
  EXPECT_FALSE(made.spec("features.weight").trainable);
  EXPECT_EQ(made.spec("features.weight").initializer.a, 1);
  EXPECT_TRUE(made.spec("features.bias").trainable);
  EXPECT_TRUE(made.spec("bn2.weight").trainable);
}

TEST(IResNet, TakesOtherInputsAndWidths) {
  const Made small("iresnet", "depth = 18\nembedding = 128", {2, 3, 64, 64});
  EXPECT_EQ(small.embedding.shape(), (Shape{2, 128}));
  EXPECT_EQ(small.spec("fc.weight").type.shape, (Shape{128, 512 * 4 * 4}));
  const Made wide("iresnet", "depth = 18", {2, 3, 112, 96});
  EXPECT_EQ(wide.spec("fc.weight").type.shape, (Shape{512, 512 * 7 * 6}));
  const Made odd("iresnet", "depth = 18", {2, 3, 50, 50});
  EXPECT_EQ(odd.spec("fc.weight").type.shape, (Shape{512, 512 * 4 * 4}));
}

TEST(IResNet, HasThreeTails) {
  EXPECT_EQ(Made("iresnet", "depth = 18\nfc = \"FC\"").count("dropout"), 0);
  const Made e("iresnet", "depth = 18\nfc = \"E\"");
  EXPECT_EQ(e.count("dropout"), 1);
  EXPECT_THAT(e.graph.text(), HasSubstr("dropout"));
  EXPECT_THAT(e.graph.text(), HasSubstr("p=0.4"));
  EXPECT_EQ(e.parameters(), 24025600);
  const Made gdc("iresnet", "depth = 18\nfc = \"GDC\"");
  EXPECT_EQ(gdc.spec("gdc.conv.weight").type.shape, (Shape{512, 1, 7, 7}));
  EXPECT_EQ(gdc.spec("fc.weight").type.shape, (Shape{512, 512}));
  EXPECT_FALSE(gdc.names().contains("fc.bias"));
  EXPECT_EQ(gdc.embedding.shape(), (Shape{4, 512}));
}

TEST(IResNet, DropsOutInTrainingAlone) {
  EXPECT_THAT(Made("iresnet", "depth = 18\ndropout = 0.25").graph.text(), HasSubstr("p=0.25"));
  EXPECT_EQ(Made("iresnet", "depth = 18\nfc = \"E\"\ndropout = 0.0").count("dropout"), 0);
  const Made evaluation("iresnet", "depth = 18\nfc = \"E\"", {4, 3, 112, 112}, false);
  EXPECT_EQ(evaluation.count("dropout"), 0);
  EXPECT_EQ(evaluation.count("batch_norm"), 0);
  EXPECT_GT(evaluation.count("batch_norm_fixed"), 0);
}

TEST(MobileFaceNet, NamesItsParametersAsArcFaceTorch) {
  const Made made("mobilefacenet", "");
  const std::set<std::string> names = made.names();
  for (const char* name :
       {"layers.0.layers.0.weight", "layers.0.layers.1.running_mean", "layers.0.layers.2.weight",
        "layers.1.layers.0.weight", "layers.2.layers.0.layers.1.weight",
        "layers.2.layers.2.layers.1.bias", "layers.3.layers.0.layers.2.layers.0.weight",
        "layers.3.layers.3.layers.1.layers.2.weight", "layers.7.layers.1.layers.0.layers.0.weight",
        "conv_sep.layers.0.weight", "conv_sep.layers.2.weight", "features.layers.0.layers.0.weight",
        "features.layers.0.layers.1.weight", "features.layers.2.weight",
        "features.layers.3.running_var"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_EQ(made.spec("layers.0.layers.0.weight").type.shape, (Shape{128, 3, 3, 3}));
  EXPECT_EQ(made.spec("layers.1.layers.0.weight").type.shape, (Shape{128, 2, 3, 3}));
  EXPECT_EQ(made.spec("layers.6.layers.1.layers.0.weight").type.shape, (Shape{512, 1, 3, 3}));
  EXPECT_EQ(made.spec("features.layers.0.layers.0.weight").type.shape, (Shape{512, 1, 7, 7}));
  EXPECT_TRUE(made.spec("features.layers.3.weight").trainable);
  EXPECT_DOUBLE_EQ(made.spec("layers.1.layers.0.weight").initializer.b, std::sqrt(2.0 / 1152));
}

TEST(MobileFaceNet, HasTheWidthOfY1) {
  const Made y1("mobilefacenet", "scale = 1\nembedding = 128\neps = 1e-3");
  EXPECT_EQ(y1.embedding.shape(), (Shape{4, 128}));
  EXPECT_EQ(y1.spec("layers.0.layers.0.weight").type.shape, (Shape{64, 3, 3, 3}));
  EXPECT_EQ(y1.spec("layers.1.layers.0.weight").type.shape, (Shape{64, 1, 3, 3}));
  EXPECT_EQ(y1.spec("features.layers.2.weight").type.shape, (Shape{128, 512}));
  EXPECT_THAT(y1.graph.text(), HasSubstr("eps=0.001"));
}

TEST(MobileFaceNet, TakesOtherInputs) {
  const Made small("mobilefacenet", "scale = 1\nembedding = 64\nblocks = [1, 1, 1, 1]",
                   {2, 3, 64, 64});
  EXPECT_EQ(small.embedding.shape(), (Shape{2, 64}));
  EXPECT_EQ(small.spec("features.layers.0.layers.0.weight").type.shape, (Shape{512, 1, 4, 4}));
}

TEST(Backbones, RefuseImagesThatDoNotFit) {
  EXPECT_THROW(Made("mobilefacenet", "", {2, 3, 112, 96}), ShapeError);
  EXPECT_THROW(Made("iresnet", "depth = 18\nfc = \"GDC\"", {2, 3, 112, 96}), ShapeError);
}

TEST(Backbones, CheckTheirKeys) {
  const auto error = [](const std::string& plugin, const std::string& keys) -> std::string {
    try {
      Made(plugin, keys);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "no ConfigError";
  };
  EXPECT_THAT(error("iresnet", "depth = 51"), HasSubstr("50"));
  EXPECT_THAT(error("iresnet", "dpeth = 50"), HasSubstr("depth"));
  EXPECT_THAT(error("iresnet", "fc = \"F\""), HasSubstr("GDC"));
  EXPECT_THAT(error("mobilefacenet", "blocks = [1, 4]"), HasSubstr("four counts"));
  EXPECT_THAT(error("mobilefacenet", "embedding = 0"), HasSubstr("at least 1"));
}

}  // namespace
}  // namespace ftrain
