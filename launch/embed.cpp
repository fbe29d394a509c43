// ftrain embed: the embeddings of images by a trained network, and how fast its forward pass is.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/process.h"
#include "core/checkpoint/state.h"
#include "core/train/step_graph.h"
#include "core/verify/evaluator.h"
#include "ftrain/base/error.h"
#include "ftrain/base/philox.h"
#include "ftrain/base/suggest.h"
#include "launch/command_line.h"
#include "launch/embedding_file.h"
#include "launch/image_list.h"
#include "launch/weights.h"

namespace ftrain::launch {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A job assembled, its network compiled for evaluation.
struct Network {
  Job job;
  std::unique_ptr<Registry> registry;
  Assembly assembly;
  std::unique_ptr<StateStore> store;
  std::unique_ptr<Executable> forward;
  std::int64_t width = 0;

  explicit Network(Job source)
      : job(std::move(source)), registry(registry_for(job)), assembly(job, *registry) {}

  void compile() {
    Device& device = *assembly.device;
    assembly.open_device(0, 1);
    const auto graph = evaluation_graph(assembly, assembly.verify.batch);
    width = embedding_width(*graph);
    store = device.make_store();
    forward = device.compile(device.prepare(*graph, store.get(), nullptr), *store, nullptr);
  }
};

// RUN: a run folder's own job, or a job file.
Job job_of(const CommandLine& line, bool* is_folder) {
  const fs::path run = line.text("RUN");
  *is_folder = fs::is_directory(run);
  if (*is_folder && !fs::exists(run / "job.toml")) {
    throw DataError(run.string() +
                    ": holds no job.toml, so it is no run folder; give the folder "
                    "that `ftrain run` wrote, or a job file");
  }
  return Job::load(
      *is_folder ? run / "job.toml" : run,
      line.has("set") ? line.value<std::vector<std::string>>("set") : std::vector<std::string>());
}

// Images that could not be decoded: how many, and the first of them.
class Damages {
 public:
  void add(std::int64_t image, const DataError& error) {
    images_.push_back(image);
    if (images_.size() <= most_told) told_ += std::string("\n  ") + error.what();
  }
  bool has(std::int64_t image) const {
    return std::binary_search(images_.begin(), images_.end(), image);
  }
  std::size_t count() const { return images_.size(); }
  std::string text(std::int64_t of) const {
    std::string text = count_text(static_cast<std::int64_t>(images_.size())) + " of " +
                       count_text(of) + " images cannot be read:" + told_;
    if (images_.size() > most_told) {
      text +=
          "\n  and " + count_text(static_cast<std::int64_t>(images_.size() - most_told)) + " more";
    }
    return text;
  }

 private:
  static constexpr std::size_t most_told = 10;
  std::vector<std::int64_t> images_;  // ascending
  std::string told_;
};

void scale_to_length_one(std::vector<float>& row) {
  double sum = 0;
  for (const float v : row) sum += static_cast<double>(v) * static_cast<double>(v);
  const double length = std::max(std::sqrt(sum), 1e-12);
  for (float& v : row) v = static_cast<float>(static_cast<double>(v) / length);
}

nlohmann::ordered_json write_embeddings(const CommandLine& line, Network& network) {
  const ImageList images(line.value<std::vector<std::string>>("IMAGES"), network.assembly);
  EmbeddingFile out(line.text("output"), network.width);
  const ImageSource source{images.size(), [&](std::int64_t i) { return images.read(i); },
                           [&](std::int64_t i) { return images.name(i); }};
  const bool skip = line.text("on-corrupt") == "skip";
  const auto width = static_cast<std::size_t>(network.width);
  Damages damages;
  std::vector<float> row(width);
  const Clock::time_point begin = Clock::now();
  const auto take = [&](std::int64_t first, std::span<const float> rows,
                        std::span<const float> mirrored) {
    for (std::size_t i = 0; i * width < rows.size(); ++i) {
      const std::int64_t image = first + static_cast<std::int64_t>(i);
      if (damages.has(image)) continue;
      for (std::size_t d = 0; d < width; ++d) {
        row[d] = rows[i * width + d] + (mirrored.empty() ? 0.0f : mirrored[i * width + d]);
      }
      if (line.has("normalize")) scale_to_length_one(row);
      out.add(images.name(image), row);
    }
  };
  const Assembly& a = network.assembly;
  Evaluator(*network.forward, a.verify.batch, a.data.image_size, network.width)
      .embed(source, line.has("flip"), take,
             [&](std::int64_t image, const DataError& error) { damages.add(image, error); });
  if (damages.count() > 0 && !skip) {
    throw DataError(damages.text(images.size()) +
                    "\nNothing was written. With --on-corrupt skip they are left out.");
  }
  if (out.rows() == 0) throw DataError(damages.text(images.size()) + "\nNothing was written.");
  out.commit();
  const double seconds = seconds_since(begin);
  if (damages.count() > 0) std::cerr << "left out: " << damages.text(images.size()) << "\n";
  if (!line.has("json")) {
    std::printf("%s embeddings of %lld numbers: %s\ntheir names: %s\n%.1f images/s\n",
                count_text(out.rows()).c_str(), static_cast<long long>(network.width),
                out.file().c_str(), out.names().c_str(),
                static_cast<double>(images.size()) / seconds);
  }
  return {{"images", images.size()},       {"rows", out.rows()},
          {"damaged", damages.count()},    {"output", out.file().string()},
          {"names", out.names().string()}, {"seconds", seconds}};
}

// The forward pass alone, again and again over one batch of random pixels.
nlohmann::ordered_json measure(const CommandLine& line, Network& network) {
  const auto repeat = line.value<std::int64_t>("repeat");
  const std::int64_t batch = network.assembly.verify.batch, size = network.assembly.data.image_size;
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(batch * size * size * 3));
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<std::uint8_t>(
        Philox::at(name_hash("pixels"), std::uint64_t{0}, std::uint64_t{i}).bits64(0));
  }
  network.forward->write("image", pixels.data());
  std::vector<float> embedding(static_cast<std::size_t>(batch * network.width));
  std::vector<double> seconds;
  constexpr std::int64_t warm_up = 2;
  for (std::int64_t i = 0; i < warm_up + repeat; ++i) {
    const Clock::time_point begin = Clock::now();
    network.forward->run();
    network.forward->read("embedding", embedding.data());
    if (i >= warm_up) seconds.push_back(seconds_since(begin));
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double speed = static_cast<double>(batch) / median;
  if (!line.has("json")) {
    std::printf("forward pass of %lld images: median %.2f ms, %.1f images/s\n",
                static_cast<long long>(batch), median * 1e3, speed);
  }
  return {{"batch", batch},
          {"repeat", repeat},
          {"seconds", median},
          {"images_per_second", speed},
          {"fastest_seconds", seconds.front()},
          {"arena_bytes", network.forward->program().plan.arena_bytes},
          {"peak_memory_bytes", peak_memory_bytes()}};
}

}  // namespace

int embed_command(const Words& words) {
  CommandLine line(
      "ftrain embed RUN [IMAGES ...] [options]",
      "Writes the embeddings of images as a NumPy file, f32 [images, width], and their names, a "
      "line each, beside it.\nRUN: a run folder, or a job file, whose run folder's checkpoint or "
      "else [init] weights are taken.\nIMAGES: files, folders (all images in them and below), "
      "\"dataset\" (the job's training set), or the names of its verification sets.");
  line.argument("RUN");
  line.remaining_arguments("IMAGES");
  line.options()("set", po::value<std::vector<std::string>>()->value_name("KEY=VALUE")->composing(),
                 "override a key of the job, as in --set verify.batch=64; may be repeated")(
      "output,o", po::value<std::string>()->value_name("FILE")->default_value("embeddings.npy"),
      "the file to write; its names go into the file of that name with .txt")(
      "flip", "add the mirrored image's embedding, as verification does")(
      "normalize", "scale each embedding to length 1")(
      "on-corrupt", po::value<std::string>()->value_name("WHAT")->default_value("stop"),
      "images that cannot be read: stop with a list of them, or skip them")(
      "repeat", po::value<std::int64_t>()->value_name("N"),
      "measure the forward pass alone, N times over one batch ([verify] batch); without IMAGES "
      "nothing else is done, and without weights it is the untrained network's")(
      "json", "print one JSON object");
  add_weight_options(line);
  if (!line.parse(words)) return 0;
  const std::string& corrupt = line.text("on-corrupt");
  if (corrupt != "stop" && corrupt != "skip") {
    throw ConfigError("--on-corrupt is stop or skip, not '" + corrupt + "'." +
                      did_you_mean(corrupt, std::vector<std::string>{"stop", "skip"}));
  }
  if (!line.has("IMAGES") && !line.has("repeat")) {
    throw ConfigError("IMAGES is missing: files, folders, or the names of the job's sets");
  }
  if (line.has("repeat") && line.value<std::int64_t>("repeat") < 1) {
    throw ConfigError("--repeat is at least 1");
  }

  bool is_folder = false;
  Network network(job_of(line, &is_folder));
  const Assembly& a = network.assembly;
  const fs::path folder = is_folder ? fs::path(line.text("RUN")) : a.folder();
  const bool only_measure = !line.has("IMAGES");
  std::optional<Weights> weights;
  try {
    weights.emplace(line, folder / "checkpoints", &a.init);
  } catch (const DataError&) {
    if (!only_measure || is_folder || line.has("checkpoint")) throw;
  }
  network.compile();
  if (weights) {
    weights->load(*network.store);
  } else {
    initialize(*network.store, a.seed());
  }

  nlohmann::ordered_json report;
  report["weights"] = weights ? weights->source() : "untrained";
  report["width"] = network.width;
  if (!line.has("json")) std::cout << "weights: " << report["weights"].get<std::string>() << "\n";
  std::cout.flush();
  if (!only_measure) report.update(write_embeddings(line, network));
  if (line.has("repeat")) report["forward"] = measure(line, network);
  if (line.has("json")) std::cout << report.dump() << "\n";
  return 0;
}

}  // namespace ftrain::launch
