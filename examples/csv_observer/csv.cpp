// An observer of one's own: a table of the run's steps, for spreadsheets.
//
// Its columns are those of every step and then the scalars that the step reports, by their names.
#include <fstream>
#include <limits>
#include <string>

#include "ftrain/base/log.h"
#include "ftrain/observer.h"
#include "ftrain/plugin.h"

class Csv final : public ftrain::Observer {
 public:
  void configure(ftrain::Keys& keys) override {
    keys.bind("file", file_, "the table's name in the run folder");
  }

  // A run that continues keeps the lines of the steps that it does not make again.
  void on_start(const ftrain::RunInfo& info) override {
    path_ = info.folder / file_;
    std::string kept;
    if (info.first_step > 0) {
      std::ifstream before(path_);
      std::string line;
      if (std::getline(before, line)) kept = line + "\n";
      while (std::getline(before, line) && std::stoll(line) <= info.first_step) kept += line + "\n";
    }
    has_title_ = !kept.empty();
    table_.open(path_, std::ios::trunc);
    table_.precision(std::numeric_limits<double>::max_digits10);
    put(kept);
  }

  void on_step(const ftrain::StepReport& report) override {
    if (!has_title_) {
      std::string title = "step,epoch,loss,rate,gradient_norm";
      for (const ftrain::NamedValue& metric : report.metrics) title += "," + metric.name;
      put(title + "\n");
      has_title_ = true;
    }
    table_ << report.step << ',' << report.epoch << ',' << report.loss << ',' << report.rate << ','
           << report.gradient_norm;
    for (const ftrain::NamedValue& metric : report.metrics) table_ << ',' << metric.value;
    put("\n");
  }

 private:
  // A run is not stopped for want of a place to write.
  void put(const std::string& text) {
    table_ << text << std::flush;
    if (table_ || warned_) return;
    warned_ = true;
    ftrain::log::warning(path_.string() + ": cannot be written; the run goes on without it");
  }

  std::string file_ = "steps.csv";
  std::filesystem::path path_;
  std::ofstream table_;
  bool has_title_ = false, warned_ = false;
};

FTRAIN_PLUGIN(csv, registry) {
  registry.add<ftrain::Observer, Csv>("csv", "a table of the steps in the run folder");
}
