// Ten training steps against PyTorch's, stored in expected/ (see README.md there).
//
// Each case is run as a user would run it: weights from safetensors files through [init], batches
// from a RecordIO file of lossless PNG images, plugins loaded from their libraries.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/data/image.h"
#include "core/train/safetensors.h"
#include "core/train/state.h"
#include "core/train/step_graph.h"
#include "core/train/trainer.h"
#include "parity/inputs.h"

namespace ftrain {
namespace {

using Json = nlohmann::json;

double relative(double got, double want) { return std::abs(got - want) / std::abs(want); }

class Parity : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::ifstream file(std::string(FTRAIN_SOURCE) + "/tests/parity/expected/" + GetParam() +
                       ".json");
    ASSERT_TRUE(file) << GetParam();
    expected_ = Json::parse(file);
    folder_ = std::filesystem::temp_directory_path() /
              ("ftrain-parity-" + std::to_string(getpid()) + "-" + GetParam());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  bool iresnet() const { return expected_["network"].get<std::string>()[0] == 'r'; }

  std::string backbone() const {
    const std::string network = expected_["network"];
    if (iresnet()) return "plugin = \"iresnet\"\ndepth = " + network.substr(1);
    if (network == "y1") {
      return "plugin = \"mobilefacenet\"\nscale = 1\nembedding = 128\neps = 1e-3";
    }
    return "plugin = \"mobilefacenet\"";
  }

  std::string head() const {
    std::string text;
    for (const auto& [key, value] : expected_["head"].items()) {
      if (key == "scale" && expected_["head"]["plugin"] == "softmax") continue;
      text += key + " = " + value.dump() + "\n";
    }
    return text;
  }

  Job job() const {
    const Json& recipe = expected_["recipe"];
    return Job::parse(
        "name = \"parity\"\n[device]\nplugin = \"cpu\"\n[backbone]\n" + backbone() +
            "\n[head]\n" + head() + "[optimizer]\nplugin = \"sgd\"\nrate = " +
            recipe["rate"].dump() + "\nmomentum = " + recipe["momentum"].dump() +
            "\nweight_decay = " + recipe["weight_decay"].dump() + "\nclip = " +
            recipe["clip"].dump() + "\n[schedule]\nplugin = \"step\"\n[dataset]\nplugin = " +
            "\"recordio\"\npath = \"" + (folder_ / "train.rec").string() + "\"\nclasses = " +
            expected_["classes"].dump() + "\nbatch = " + expected_["batch"].dump() +
            "\nshuffle = false\nflip = 0.0\n[init]\nbackbone = \"" +
            (folder_ / "backbone.safetensors").string() + "\"\ncenters = \"" +
            (folder_ / "centers.safetensors").string() + "\"\n[run]\nsteps = " +
            expected_["steps"].dump() + "\nfolder = \"" + (folder_ / "run").string() +
            "\"\n[observers]\nuse = []\n");
  }

  // Records as im2rec writes them: magic, length, flag, label, two ids, the image.
  void write_images() const {
    std::ofstream rec(folder_ / "train.rec", std::ios::binary);
    std::ofstream idx(folder_ / "train.idx");
    const std::int64_t samples = expected_["samples"];
    for (std::int64_t i = 0; i < samples; ++i) {
      write_png(folder_ / "image.png", {parity::kSide, parity::kSide,
                                        parity::image(static_cast<std::uint64_t>(i))});
      std::ifstream png(folder_ / "image.png", std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(png)), {});
      idx << i << '\t' << rec.tellp() << '\n';
      const auto length = static_cast<std::uint32_t>(24 + bytes.size());
      const auto label = static_cast<float>(
          parity::label(i, expected_["classes"].get<std::int64_t>()));
      char header[32] = {};
      const std::uint32_t magic = 0xced7230a;
      std::memcpy(header, &magic, 4);
      std::memcpy(header + 4, &length, 4);
      std::memcpy(header + 12, &label, 4);
      rec.write(header, sizeof(header)).write(bytes.data(), std::ssize(bytes));
      rec.write("\0\0\0", (4 - length % 4) % 4);
    }
  }

  // The names and shapes come from the network itself.
  void write_weights(const Job& job, Registry& registry) const {
    const Assembly assembly(job, registry);
    const auto graph = evaluation_graph(assembly, 1);
    std::vector<std::vector<float>> values;
    std::vector<TensorView> tensors;
    for (const Graph::State& state : graph->states()) {
      const Shape& shape = state.spec.type.shape;
      values.push_back(parity::draw(state.spec.name, shape.elements(),
                                    parity::law(state.spec.name, shape.extents(), iresnet())));
      tensors.push_back({state.spec.name, DType::f32, shape, values.back().data()});
    }
    write_safetensors(folder_ / "backbone.safetensors", tensors);
    const Shape shape{expected_["classes"], expected_["embedding"]};
    const auto centers = parity::draw("centers.weight", shape.elements(), {0.01, 0});
    const std::vector<TensorView> weight{{"weight", DType::f32, shape, centers.data()}};
    write_safetensors(folder_ / "centers.safetensors", weight);
  }

  // Evaluation-mode embeddings of the first batch, from the run's checkpoint.
  void check_embeddings(const Job& job, Registry& registry) const {
    const Assembly assembly(job, registry);
    const std::int64_t batch = expected_["batch"], width = expected_["embedding"];
    assembly.device->open(0, 1);
    const auto store = assembly.device->make_store();
    const auto graph = evaluation_graph(assembly, batch);
    const auto forward = assembly.device->compile(
        assembly.device->prepare(*graph, store.get(), nullptr), *store, nullptr);
    CheckpointReader checkpoint(latest_checkpoint(folder_ / "run/checkpoints")->path);
    restore(*store, checkpoint);
    std::vector<std::uint8_t> images;
    for (std::int64_t i = 0; i < batch; ++i) {
      const auto pixels = parity::image(static_cast<std::uint64_t>(i));
      images.insert(images.end(), pixels.begin(), pixels.end());
    }
    forward->write("image", images.data());
    forward->run();
    std::vector<float> embedding(static_cast<std::size_t>(batch * width));
    forward->read("embedding", embedding.data());
    for (std::int64_t i = 0; i < batch; ++i) {
      const Json& want = expected_["eval_embedding"][static_cast<std::size_t>(i)];
      const float* row = embedding.data() + i * width;
      double squares = 0;
      for (std::int64_t d = 0; d < width; ++d) squares += static_cast<double>(row[d]) * row[d];
      const double norm = want["norm"];
      EXPECT_LT(relative(std::sqrt(squares), norm), 1e-3) << "image " << i;
      for (std::size_t d = 0; d < want["first"].size(); ++d) {
        // Against the embedding's own size: single values may be near 0.
        EXPECT_NEAR(static_cast<double>(row[d]), want["first"][d].get<double>(), 2e-3 * norm)
            << "image " << i;
      }
    }
  }

  Json expected_;
  std::filesystem::path folder_;
};

TEST_P(Parity, TenStepsFollowPyTorch) {
  Registry registry({FTRAIN_PLUGINS});
  const Job source = job();
  write_images();
  write_weights(source, registry);
  std::vector<StepReport> steps;
  Trainer trainer(source, registry, {});
  trainer.after_step = [&](const StepReport& report) { steps.push_back(report); };
  trainer.run();

  const Json& loss = expected_["loss"];
  ASSERT_EQ(steps.size(), loss.size());
  EXPECT_LT(relative(steps[0].loss, loss[0]), 1e-6);
  // PyTorch's own float32 is up to 1.1e-6 away from its float64 here.
  EXPECT_LT(relative(steps[0].gradient_norm, expected_["gradient_norm"][0]), 3e-6);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_LT(relative(steps[i].loss, loss[i]), 1e-4) << "step " << i + 1;
    EXPECT_LT(relative(steps[i].gradient_norm, expected_["gradient_norm"][i]), 1e-2)
        << "step " << i + 1;
  }
  for (const StateStore::Entry& entry : trainer.states().entries()) {
    if (entry.spec.role == StateSpec::Role::slot) continue;
    std::vector<float> values(static_cast<std::size_t>(entry.spec.type.shape.elements()));
    trainer.states().read(entry.spec.name, values.data());
    double squares = 0;
    for (const float v : values) squares += static_cast<double>(v) * static_cast<double>(v);
    const double want = entry.spec.name == "centers.weight"
                            ? expected_["centers_norm"].get<double>()
                            : expected_["weight_norms"].at(entry.spec.name).get<double>();
    // Statistics hold activations, which rounding moves more than weights.
    const double tolerance = entry.spec.role == StateSpec::Role::statistic ? 1e-3 : 1e-6;
    EXPECT_NEAR(std::sqrt(squares), want, tolerance * std::max(want, 1e-3)) << entry.spec.name;
  }
  check_embeddings(source, registry);
}

INSTANTIATE_TEST_SUITE_P(Cases, Parity,
                         testing::Values("r18_cosface", "r18_arcface", "r18_softmax",
                                         "mbf_cosface", "mbf_arcface_straight",
                                         "mbf_normalized_softmax", "y1_combined"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace ftrain
