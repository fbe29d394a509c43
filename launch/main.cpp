// ftrain: the command line. Finds the command, runs it, and turns errors into messages and exit
// codes: 0 done, 1 a bug, 2 the user's input, 3 data, 4 device or communication, 130 and 143 ended
// by SIGINT and SIGTERM.
#include <malloc.h>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"
#include "ftrain/plugin/abi.h"
#include "launch/commands.h"
#include "launch/complaint.h"

namespace {

using namespace ftrain;
using launch::Words;

struct Command {
  const char* name;
  const char* about;
  int (*run)(const Words&);
};

const std::vector<Command> commands{
    {"run", "train a job, or continue it", launch::run_command},
    {"verify", "verify a trained network on the job's sets", launch::verify_command},
    {"embed", "write the embeddings of images", launch::embed_command},
    {"plan", "print the assembled step, its kernels and its memory", launch::plan_command},
    {"parity", "compare a job's parallelisms on several numbers of ranks", launch::parity_command},
    {"plugins", "list the plugins and their keys", launch::plugins_command},
    {"data", "describe a job's data, or show them on a sheet", launch::data_command},
    {"config", "print a job with everything resolved", launch::config_command},
};

void print_help(std::ostream& out) {
  out << "usage: ftrain COMMAND ...\n\nftrain trains face-recognition models. A job is a TOML "
         "file; what has a name in it is a plugin.\n\ncommands:\n";
  for (const Command& command : commands) {
    const std::string name = command.name;
    out << "  " << name << std::string(10 - name.size(), ' ') << command.about << "\n";
  }
  out << "\n`ftrain COMMAND --help` says more; `ftrain --version` names this build.\n";
}

int dispatch(const Words& words) {
  if (words.empty()) {
    print_help(std::cerr);
    return static_cast<int>(ExitCode::user_input);
  }
  const std::string& name = words.front();
  if (name == "--help" || name == "-h" || name == "help") {
    print_help(std::cout);
    return 0;
  }
  if (name == "--version") {
    std::cout << "ftrain " << FTRAIN_VERSION << "\n" << FTRAIN_BUILD << "\n";
    return 0;
  }
  std::vector<std::string> known;
  for (const Command& command : commands) {
    if (name == command.name) return command.run({words.begin() + 1, words.end()});
    known.emplace_back(command.name);
  }
  throw ConfigError("there is no command '" + name + "'." + did_you_mean(name, known) +
                    " There are " + join(known) + ".");
}

}  // namespace

int main(int count, char** arguments) {
  // Threads of OpenMP wait for their next piece of work by spinning, by default for so long that a
  // neighbour on the same cores slows a step several times over. OpenMP reads this when the first
  // plugin that uses it is loaded; who has set it knows better.
  setenv("GOMP_SPINCOUNT", "10000", 0);
  // Buffers of a megabyte and more go back to the system when they are freed: left to itself the
  // allocator keeps ever larger ones, and `ftrain plan` could not say what a run takes.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  try {
    const int code = dispatch(Words(arguments + 1, arguments + count));
    std::cout.flush();
    if (!std::cout) throw DataError("standard output cannot be written");
    return code;
  } catch (...) {
    const launch::Complaint complaint = launch::complaint_of(std::current_exception());
    launch::print_error(complaint);
    return complaint.code;
  }
}
