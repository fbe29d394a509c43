#include "launch/command_line.h"

#include <cstdio>
#include <iostream>

#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"

namespace ftrain::launch {

namespace po = boost::program_options;

CommandLine::CommandLine(std::string usage, std::string about)
    : usage_(std::move(usage)), about_(std::move(about)), options_("options") {
  options_.add_options()("help,h", "print this");
}

po::options_description_easy_init CommandLine::options() {
  return options_.add_options();
}

void CommandLine::argument(const std::string& name, bool required) {
  hidden_.add_options()(name.c_str(), po::value<std::string>());
  positional_.add(name.c_str(), 1);
  arguments_.emplace_back(name, required);
}

void CommandLine::remaining_arguments(const std::string& name) {
  hidden_.add_options()(name.c_str(), po::value<std::vector<std::string>>());
  positional_.add(name.c_str(), -1);
}

void CommandLine::job_arguments() {
  argument("JOB");
  options()("set", po::value<std::vector<std::string>>()->value_name("KEY=VALUE")->composing(),
            "override a key of the job, as in --set head.margin=0.4; may be repeated");
}

bool CommandLine::parse(const Words& words) {
  po::options_description all;
  all.add(options_).add(hidden_);
  namespace style = po::command_line_style;
  try {
    po::store(po::command_line_parser(words)
                  .options(all)
                  .positional(positional_)
                  .style(style::unix_style & ~style::allow_guessing)
                  .run(),
              values_);
  } catch (const po::unknown_option& error) {
    std::vector<std::string> known;
    for (const auto& option : options_.options()) known.push_back("--" + option->long_name());
    refuse(std::string(error.what()) + "." + did_you_mean(error.get_option_name(), known));
  } catch (const po::too_many_positional_options_error&) {
    refuse("too many words");
  } catch (const po::error& error) {
    refuse(error.what());
  }
  if (has("help")) {
    std::cout << "usage: " << usage_ << "\n\n" << about_ << "\n\n" << options_;
    return false;
  }
  for (const auto& [name, required] : arguments_) {
    if (required && !has(name)) refuse(name + " is missing");
  }
  return true;
}

void CommandLine::refuse(const std::string& message) const {
  throw ConfigError(message + "\nusage: " + usage_ + "\n--help says more.");
}

Job CommandLine::job(const std::vector<std::string>& more) const {
  std::vector<std::string> sets;
  if (has("set")) sets = value<std::vector<std::string>>("set");
  sets.insert(sets.end(), more.begin(), more.end());
  return Job::load(text("JOB"), sets);
}

std::string memory_text(std::size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

std::string count_text(std::int64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t at = text.size(); at > 3;) {
    at -= 3;
    text.insert(at, ",");
  }
  return text;
}

}  // namespace ftrain::launch
