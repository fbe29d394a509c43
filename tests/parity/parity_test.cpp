// Ten training steps of the whole program against PyTorch's stored results (README.md).
//
// FTRAIN_PARITY=CASE,CASE runs these cases only.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/checkpoint/files.h"
#include "core/checkpoint/safetensors.h"
#include "core/checkpoint/state.h"
#include "core/train/step_graph.h"
#include "core/train/trainer.h"
#include "ftrain/data/image.h"
#include "tests/parity/inputs.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using parity::kSide;

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string word(std::uint32_t value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// dmlc's framing; a payload with an aligned magic word is cut there, as its writer does.
std::string framed(const std::string& payload) {
  const std::string magic = word(0xCED7230Au);
  std::vector<std::string> parts(1);
  for (std::size_t at = 0; at < payload.size(); at += 4) {
    const std::string next = payload.substr(at, 4);
    if (next == magic) {
      parts.emplace_back();
    } else {
      parts.back() += next;
    }
  }
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::uint32_t flag = parts.size() == 1 ? 0 : i == 0 ? 1 : i + 1 == parts.size() ? 3 : 2;
    const auto size = static_cast<std::uint32_t>(parts[i].size());
    out += magic + word(flag << 29 | size) + parts[i] + std::string((4 - size % 4) % 4, '\0');
  }
  return out;
}

struct Folder {
  fs::path path = fs::temp_directory_path() / ("ftrain-parity-" + std::to_string(getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

std::string checksum(const float* values, std::size_t count) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx",
                static_cast<unsigned long long>(
                    parity::fnv1a64(values, std::min<std::size_t>(count, 1024) * 4)));
  return text;
}

class Parity : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string chosen = std::getenv("FTRAIN_PARITY") ? std::getenv("FTRAIN_PARITY") : "";
    if (!chosen.empty() && chosen.find(GetParam()) == std::string::npos) {
      GTEST_SKIP() << "not among FTRAIN_PARITY";
    }
    want_ = json::parse(std::ifstream(fs::path(FTRAIN_SOURCE) / "tests/parity/expected" /
                                      (std::string(GetParam()) + ".json")));
  }

  // The job of make.py, with nothing on the console. Winograd's convolutions round more coarsely,
  // and which ones a machine takes is a matter of its speed: they have a comparison of their own.
  Job job(bool winograd) const {
    const std::string network = want_["network"];
    std::string backbone = "plugin = \"iresnet\"\ndepth = 18\nembedding = 512\nfc = \"FC\"\n";
    if (network == "mbf") backbone = "plugin = \"mobilefacenet\"\nembedding = 512\n";
    if (network == "y1") {
      backbone = "plugin = \"mobilefacenet\"\nembedding = 128\nscale = 1\neps = 1e-3\n";
    }
    std::ostringstream text;
    text << "name = \"parity\"\nseed = 2048\n[device]\nplugin = \"cpu\"\n"
         << (winograd ? "autotune = false\n" : "winograd = \"off\"\n") << "[backbone]\n"
         << backbone << "[head]\n";
    for (const auto& [key, value] : want_["head"].items()) text << key << " = " << value << "\n";
    text << "[parallelism]\nplugin = \"model_parallel\"\n[optimizer]\nplugin = \"sgd\"\n";
    for (const auto& [key, value] : want_["recipe"].items()) text << key << " = " << value << "\n";
    text << "[schedule]\nplugin = \"step\"\n[dataset]\nplugin = \"recordio\"\npath = "
         << folder_.path / "train.rec"
         << "\nclasses = " << want_["classes"] << "\nbatch = " << want_["batch"]
         << "\nshuffle = false\nflip = 0.0\n[init]\nbackbone = "
         << folder_.path / "backbone.safetensors"
         << "\ncenters = " << folder_.path / "centers.safetensors"
         << "\n[run]\nsteps = " << want_["steps"] << "\nfolder = " << folder_.path / "run"
         << "\n[observers]\nuse = []\n";
    return Job::parse(text.str());
  }

  void write_inputs(const Assembly& assembly) {
    const auto graph = evaluation_graph(assembly, 1);
    const json& sums = want_["inputs"]["tensors"];
    std::size_t compared = 0;
    for (const Graph::State& state : graph->states()) {
      const Shape& shape = state.value.shape();
      const auto law = parity::law(state.spec.name, shape.extents(), want_["network"] == "r18");
      auto& values = weights_[state.spec.name];
      values = parity::draw(state.spec.name, shape.elements(), law);
      ASSERT_TRUE(sums.contains(state.spec.name)) << state.spec.name;
      ASSERT_EQ(checksum(values.data(), values.size()), sums[state.spec.name]) << state.spec.name;
      ++compared;
    }
    ASSERT_EQ(compared, sums.size());
    std::vector<TensorView> views;
    for (const Graph::State& state : graph->states()) {
      views.push_back(
          {state.spec.name, DType::f32, state.value.shape(), weights_[state.spec.name].data()});
    }
    write_safetensors(folder_.path / "backbone.safetensors", views);
    const std::int64_t classes = want_["classes"], width = want_["embedding"];
    const auto centers = parity::draw("centers.weight", classes * width, {0.01, 0});
    ASSERT_EQ(checksum(centers.data(), centers.size()), want_["inputs"]["centers"]);
    const TensorView view{"weight", DType::f32, {classes, width}, centers.data()};
    write_safetensors(folder_.path / "centers.safetensors", {&view, 1});
    weights_["centers.weight"] = centers;
    write_records();
  }

  void write_records() const {
    std::ofstream rec(folder_.path / "train.rec", std::ios::binary);
    std::ofstream idx(folder_.path / "train.idx");
    const fs::path png = folder_.path / "image.png";
    for (std::int64_t i = 0; i < want_["samples"]; ++i) {
      write_png(png, {kSide, kSide, parity::image(static_cast<std::uint64_t>(i))});
      const auto label = static_cast<float>(parity::label(i, want_["classes"]));
      std::string payload(24, '\0');  // flag, label, id, id2
      std::memcpy(payload.data() + 4, &label, 4);
      std::memcpy(payload.data() + 8, &i, 8);
      idx << i << '\t' << rec.tellp() << '\n';
      rec << framed(payload + bytes_of(png));
    }
  }

  std::vector<float> state(const StateStore& store, const std::string& name) const {
    for (const StateStore::Entry& entry : store.entries()) {
      if (entry.spec.name != name) continue;
      std::vector<float> values(static_cast<std::size_t>(entry.spec.type.shape.elements()));
      store.read(name, values.data());
      return values;
    }
    throw std::runtime_error("no state '" + name + "'");
  }

  // |gradient| of a tensor in the first step, out of its momentum: v = c g + decay w.
  double first_gradient_norm(const StateStore& store, const std::string& name, double clip) {
    const std::vector<float> velocity = state(store, name + ".momentum");
    const double decay = want_["recipe"]["weight_decay"];
    const std::vector<float>& start = weights_.at(name);
    double sum = 0;
    for (std::size_t i = 0; i < velocity.size(); ++i) {
      const double g =
          (static_cast<double>(velocity[i]) - decay * static_cast<double>(start[i])) / clip;
      sum += g * g;
    }
    return std::sqrt(sum);
  }

  // `loose`: how many times the tolerance of plain sums.
  void check_first_gradients(const StateStore& store, double loose) {
    const double total = want_["gradient_norm"][0];
    const double limit = want_["recipe"]["clip"];
    const double clip = std::min(1.0, limit / (total + 1e-6));
    for (const auto& [name, norm] : want_["step1"]["gradient_norms"].items()) {
      const double expected = norm;
      EXPECT_NEAR(first_gradient_norm(store, name, clip), expected,
                  loose * (2e-5 * expected + 1e-6 * total))
          << name;
    }
    const double centers = want_["step1"]["centers_gradient_norm"];
    EXPECT_NEAR(first_gradient_norm(store, "centers.weight", 1), centers, loose * 1e-5 * centers);
  }

  void check_final_norms(const StateStore& store, double loose) const {
    const auto norm = [&](const std::string& name) {
      double sum = 0;
      for (const float v : state(store, name)) sum += static_cast<double>(v) * v;
      return std::sqrt(sum);
    };
    for (const auto& [name, value] : want_["weight_norms"].items()) {
      const double expected = value;
      // Statistics follow the activations, whose rounding grows with the steps.
      const double tolerance = name.find("running_") != std::string::npos ? 2e-5 : 1e-6;
      EXPECT_NEAR(norm(name), expected, loose * tolerance * expected) << name;
    }
    const double centers = want_["centers_norm"];
    EXPECT_NEAR(norm("centers.weight"), centers, loose * 1e-6 * centers);
  }

  void check_evaluation(const Assembly& assembly) const {
    const std::int64_t batch = want_["batch"];
    const auto width = static_cast<std::size_t>(want_["embedding"].get<std::int64_t>());
    assembly.device->open(0, 1);
    const auto store = assembly.device->make_store();
    const auto graph = evaluation_graph(assembly, batch);
    const auto forward = assembly.device->compile(
        assembly.device->prepare(*graph, store.get(), nullptr), *store, nullptr);
    const auto latest = latest_checkpoint(folder_.path / "run" / "checkpoints");
    ASSERT_TRUE(latest.has_value());
    CheckpointReader checkpoint(latest->path);
    restore(*store, checkpoint);
    std::vector<std::uint8_t> images;
    for (std::int64_t i = 0; i < batch; ++i) {
      const auto image = parity::image(static_cast<std::uint64_t>(i));
      images.insert(images.end(), image.begin(), image.end());
    }
    const std::int64_t step = 0;
    forward->write("image", images.data());
    forward->write("step", &step);
    forward->run();
    std::vector<float> embedding(static_cast<std::size_t>(batch) * width);
    forward->read("embedding", embedding.data());
    for (std::size_t i = 0; i < static_cast<std::size_t>(batch); ++i) {
      const json& want = want_["eval_embedding"][i];
      double sum = 0;
      for (std::size_t d = 0; d < width; ++d) {
        sum += static_cast<double>(embedding[i * width + d]) * embedding[i * width + d];
      }
      const double norm = want["norm"];
      EXPECT_NEAR(std::sqrt(sum), norm, 1e-4 * norm) << "sample " << i;
      // Elements are of the size norm / sqrt(width).
      const double size = norm / std::sqrt(static_cast<double>(width));
      for (std::size_t d = 0; d < 4; ++d) {
        const double expected = want["first"][d];
        EXPECT_NEAR(static_cast<double>(embedding[i * width + d]), expected, 2e-3 * size);
      }
    }
  }

  void follow(bool winograd) {
    const double loose = winograd ? 20 : 1;
    Registry registry({FTRAIN_PLUGINS});
    const Job source = job(winograd);
    write_inputs(Assembly(source, registry));
    if (HasFatalFailure()) return;

    Trainer trainer(source, registry, {});
    std::vector<double> losses;
    trainer.after_step = [&](const StepReport& report) {
      const auto t = static_cast<std::size_t>(report.step - 1);
      const double loss = want_["loss"][t], norm = want_["gradient_norm"][t];
      losses.push_back(report.loss);
      EXPECT_NEAR(report.loss, loss, (t == 0 ? loose * 1e-6 : 1e-4) * loss)
          << "step " << report.step;
      EXPECT_NEAR(report.gradient_norm, norm, (t == 0 ? loose * 3e-6 : 1e-2) * norm)
          << "step " << report.step;
      EXPECT_FALSE(report.skipped);
      if (t == 0) check_first_gradients(trainer.states(), loose);
    };
    trainer.run();
    ASSERT_EQ(losses.size(), want_["loss"].size());
    check_final_norms(trainer.states(), loose);
    check_evaluation(Assembly(source, registry));
  }

  Folder folder_;
  json want_;
  std::map<std::string, std::vector<float>> weights_;
};

// Networks with 3x3 convolutions over all channels.
class ParityByWinograd : public Parity {};

TEST_P(Parity, TenStepsFollowPyTorch) {
  follow(false);
}

// Every convolution that can is by Winograd's method, on any machine.
TEST_P(ParityByWinograd, TenStepsFollowPyTorch) {
  follow(true);
}

INSTANTIATE_TEST_SUITE_P(Cases, Parity,
                         testing::Values("r18_cosface", "r18_arcface", "r18_softmax", "mbf_cosface",
                                         "mbf_arcface_straight", "mbf_normalized_softmax",
                                         "y1_combined"),
                         [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(Cases, ParityByWinograd,
                         testing::Values("r18_cosface", "r18_arcface", "r18_softmax"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace ftrain
