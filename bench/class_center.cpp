// class_center_bench: the class-center step alone, from given features to their gradient and the
// updated class centers, as a strategy emits it and a device runs it.
//
//   class_center_bench JOB BATCH WIDTH CLASSES STEPS
//
// Prints the seconds of each step, one a line. JOB needs [device], [head], [parallelism] and
// [optimizer]. Features and labels are new in each step; the first two steps are not timed.
#include <chrono>
#include <cstdio>
#include <iostream>
#include <random>
#include <vector>

#include "core/train/assembly.h"
#include "ftrain/base/error.h"
#include "ftrain/device/device.h"
#include "ftrain/graph/gradients.h"
#include "ftrain/model/margin_head.h"
#include "ftrain/model/optimizer.h"
#include "ftrain/model/parallelism.h"

namespace {

using namespace ftrain;

void run(const std::string& path, std::int64_t batch, std::int64_t width, std::int64_t classes,
         int steps) {
  const Job job = Job::load(path);
  const auto registry = registry_for(job);
  const auto device = registry->create<Device>(job);
  const auto parallelism = registry->create<Parallelism>(job);
  const auto optimizer = registry->create<Optimizer>(job);
  const auto margin = registry->create<MarginHead>(job)->margin();
  device->open(0, 1);

  Graph graph;
  const Value x = graph.input("x", {DType::f32, {batch, width}});
  const Value label = graph.input("label", {DType::i64, {batch}});
  const Value rate = graph.input("rate", {DType::f32, {}});
  const Value step = graph.input("step", {DType::i64, {}});
  PartialGradients so_far;
  const ClassCenterStep made = parallelism->class_centers(
      {graph, 0, 1, batch, classes, 2048, step, rate, *optimizer, margin}, x, label, so_far);
  graph.fetch("loss", made.loss);
  graph.fetch("dx", gradients(graph, made.seeds, std::vector<Value>{x})[0]);

  const auto store = device->make_store();
  const auto program =
      device->compile(device->prepare(graph, store.get(), nullptr), *store, nullptr);
  std::mt19937 random(2048);
  {
    std::vector<float> weight(static_cast<std::size_t>(classes * width));
    // As spread as N(0, 0.01), much quicker to make.
    for (float& w : weight) w = (static_cast<float>(random() >> 8) / 16777216.0f - 0.5f) * 0.0346f;
    store->write("centers.weight", weight.data());
  }

  std::normal_distribution<float> normal;
  std::vector<float> features(static_cast<std::size_t>(batch * width)), gradient(features.size());
  std::vector<std::int64_t> labels(static_cast<std::size_t>(batch));
  const float factor = static_cast<float>(optimizer->rate);
  for (std::int64_t number = 0; number < steps + 2; ++number) {
    for (float& value : features) value = normal(random);
    for (std::int64_t& value : labels) value = static_cast<std::int64_t>(random()) % classes;
    const auto begin = std::chrono::steady_clock::now();
    program->write("x", features.data());
    program->write("label", labels.data());
    program->write("rate", &factor);
    program->write("step", &number);
    program->run();
    float loss = 0;
    program->read("loss", &loss);
    program->read("dx", gradient.data());
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (number >= 2) std::printf("%.6f\n", taken.count());
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 6) {
    std::cerr << "usage: class_center_bench JOB BATCH WIDTH CLASSES STEPS" << std::endl;
    return 2;
  }
  try {
    run(arguments[1], std::stoll(arguments[2]), std::stoll(arguments[3]), std::stoll(arguments[4]),
        std::stoi(arguments[5]));
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << std::endl;
    return 2;
  }
}
