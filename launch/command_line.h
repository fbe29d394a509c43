// What the commands share: reading their words strictly, and loading a job with its --set values.
//
// Failure: ConfigError with the way out; unknown options are answered with near names.
#pragma once

#include <boost/program_options.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "ftrain/config/table.h"
#include "launch/commands.h"

namespace ftrain::launch {

class CommandLine {
 public:
  // "ftrain run JOB [options]" and what it does.
  CommandLine(std::string usage, std::string about);

  // Declares options: line.options()("fresh", "start anew").
  boost::program_options::options_description_easy_init options();
  // Declares the next positional word.
  void argument(const std::string& name, bool required = true);
  // Declares all words that are left: value<std::vector<std::string>>(name).
  void remaining_arguments(const std::string& name);
  // Declares JOB and --set.
  void job_arguments();

  // False when --help was asked for, which is printed.
  bool parse(const Words& words);

  bool has(const std::string& name) const { return values_.count(name) > 0; }
  const std::string& text(const std::string& name) const { return values_[name].as<std::string>(); }
  template <class T>
  T value(const std::string& name) const {
    return values_[name].as<T>();
  }
  // The job file with what --set says, and then `more` of the kind.
  Job job(const std::vector<std::string>& more = {}) const;

 private:
  [[noreturn]] void refuse(const std::string& message) const;

  std::string usage_, about_;
  boost::program_options::options_description options_, hidden_;
  boost::program_options::positional_options_description positional_;
  std::vector<std::pair<std::string, bool>> arguments_;
  boost::program_options::variables_map values_;
};

// "12.3 MiB".
std::string memory_text(std::size_t bytes);
// "1234567" as "1,234,567".
std::string count_text(std::int64_t count);

}  // namespace ftrain::launch
