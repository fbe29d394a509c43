// ftrain data: what a job's data set holds, in words or as a sheet of images.
#include <algorithm>
#include <iostream>

#include "core/data/contact_sheet.h"
#include "core/data/sampler.h"
#include "core/train/assembly.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "launch/command_line.h"

namespace ftrain::launch {
namespace {

namespace po = boost::program_options;

constexpr const char* usage = "ftrain data info|show JOB [options]";

int info(const Words& words) {
  CommandLine line("ftrain data info JOB [--set KEY=VALUE ...]",
                   "Opens the job's training and verification sets and says what they hold.");
  line.job_arguments();
  if (!line.parse(words)) return 0;
  const Job job = line.job();
  const auto registry = registry_for(job);
  Assembly assembly(job, *registry);
  Dataset& data = *assembly.dataset;
  data.open(assembly.seed());
  const std::int64_t global_batch =
      assembly.data.batch * assembly.run.accumulate * assembly.launch.processes;
  const Sampler sampler(data.size(), global_batch, assembly.data.shuffle, assembly.seed());
  std::cout << data.summary() << "\nimages: " << count_text(data.size())
            << "\nclasses: " << count_text(data.classes())
            << "\nsteps an epoch: " << count_text(sampler.steps_per_epoch()) << " of "
            << sampler.global_batch() << " samples\n";
  Sample sample;
  Image image;
  data.read(0, sample);
  Decoder().decode(sample.bytes, data.describe_sample(0), image);
  std::cout << "first image: " << data.describe_sample(0) << ", label " << sample.label << ", "
            << image.width << " x " << image.height << " pixels, " << sample.bytes.size()
            << " bytes\n";
  for (NamedPairs& set : assembly.pair_sets) {
    set.pairs->open(set.file, assembly.seed());
    const auto& pairs = set.pairs->pairs();
    const auto same =
        std::count_if(pairs.begin(), pairs.end(), [](const Pair& p) { return p.same; });
    std::cout << "verification set " << set.name << ": " << count_text(set.pairs->images())
              << " images, " << count_text(static_cast<std::int64_t>(pairs.size())) << " pairs, "
              << count_text(same) << " of them of one person\n";
  }
  return 0;
}

int show(const Words& words) {
  CommandLine line("ftrain data show JOB --out SHEET.png [options]",
                   "Writes a sheet of training images, each line of one label, and prints which "
                   "they are.");
  line.job_arguments();
  line.options()("out", po::value<std::string>()->value_name("FILE"), "the PNG file to write")(
      "count", po::value<std::int64_t>()->default_value(48), "images")(
      "columns", po::value<std::int64_t>()->default_value(8), "images of a label, at most");
  if (!line.parse(words)) return 0;
  if (!line.has("out")) throw ConfigError("--out is missing: which PNG file to write?");
  const auto count = line.value<std::int64_t>("count");
  const auto columns = line.value<std::int64_t>("columns");
  if (count < 1 || columns < 1 || count > 10000 || columns > 100) {
    throw ConfigError("--count is 1 to 10000, --columns 1 to 100");
  }
  const Job job = line.job();
  const auto registry = registry_for(job);
  Assembly assembly(job, *registry);
  const Dataset& data = *assembly.dataset;
  assembly.dataset->open(assembly.seed());

  Decoder decoder;
  Sample sample;
  std::vector<std::vector<Image>> images;
  for (const SheetRow& row : choose_samples(data, count, columns)) {
    std::cout << "label " << row.label << ":";
    images.emplace_back();
    for (const std::int64_t index : row.samples) {
      data.read(index, sample);
      decoder.decode(sample.bytes, data.describe_sample(index), images.back().emplace_back());
      std::cout << " " << index;
    }
    std::cout << "\n";
  }
  const std::filesystem::path out = line.text("out");
  write_png(out, contact_sheet(images, static_cast<int>(assembly.data.image_size)));
  std::cout << "written: " << out.string() << "\n";
  return 0;
}

}  // namespace

int data_command(const Words& words) {
  const std::string what = words.empty() ? "" : words.front();
  if (what == "--help" || what == "-h") {
    std::cout << "usage: " << usage << "\n\n  info  what the job's data sets hold\n"
              << "  show  a sheet of training images as PNG\n";
    return 0;
  }
  const Words rest(words.begin() + (words.empty() ? 0 : 1), words.end());
  if (what == "info") return info(rest);
  if (what == "show") return show(rest);
  const std::vector<std::string> known{"info", "show"};
  throw ConfigError((what.empty()
                         ? "info or show is missing."
                         : "there is no `ftrain data " + what + "`." + did_you_mean(what, known)) +
                    "\nusage: " + usage);
}

}  // namespace ftrain::launch
