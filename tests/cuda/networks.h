// Graphs of real networks, as a job makes them.
#pragma once

#include <memory>
#include <ostream>
#include <string>

#include "core/train/step_graph.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"

namespace ftrain::cuda {

inline constexpr const char* r18 = "plugin = \"iresnet\"\ndepth = 18\n";
inline constexpr const char* r50 = "plugin = \"iresnet\"\ndepth = 50\n";
inline constexpr const char* r100 = "plugin = \"iresnet\"\ndepth = 100\n";
inline constexpr const char* mobilefacenet = "plugin = \"mobilefacenet\"\n";

// A job as far as its graphs depend on it.
struct NetworkJob {
  std::string backbone = r18;
  std::string parallelism = "plugin = \"model_parallel\"\n";
  std::string run = {};  // more keys of [run]
  std::int64_t batch = 8, classes = 1000, image_size = 112;
};

inline std::unique_ptr<Assembly> assemble(const NetworkJob& job) {
  // Heads and optimizers with device code are those of the stand-in; the others have none.
  static Registry registry({FTRAIN_STANDIN_PLUGINS, FTRAIN_PLUGINS});
  const std::string text =
      "name = \"network\"\n[device]\nplugin = \"cpu\"\n[backbone]\n" + job.backbone +
      "[head]\nplugin = \"arcface\"\n[parallelism]\n" + job.parallelism +
      "[optimizer]\nplugin = \"sgd\"\n[schedule]\nplugin = \"cosine\"\n"
      "[dataset]\nplugin = \"synthetic\"\nclasses = " +
      std::to_string(job.classes) + "\nimage_size = " + std::to_string(job.image_size) +
      "\nbatch = " + std::to_string(job.batch) + "\n[run]\nsteps = 10\nfolder = \"unused\"\n" +
      job.run + "[observers]\nuse = []\n";
  return std::make_unique<Assembly>(Job::parse(text), registry);
}

}  // namespace ftrain::cuda
