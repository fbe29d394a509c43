#include "launch/ranks/rank_environment.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>

#include "ftrain/base/error.h"

namespace ftrain::launch {
namespace {

constexpr int most_ranks = 1 << 24;

// Reads variables and remembers nothing; every refusal names the variable.
class Reader {
 public:
  explicit Reader(const Variables& variables) : variables_(variables) {}

  bool has(const std::string& name) const { return variables_(name).has_value(); }
  std::string text(const std::string& name) const { return variables_(name).value_or(""); }

  // `because`: a variable that is set and makes no sense without this one.
  int number(const std::string& name, const std::string& because, int least, int most) const {
    const auto value = variables_(name);
    if (!value) {
      throw ConfigError("the environment has " + because + "=" + text(because) + " but no " + name +
                        ": set both, or neither to run without a launcher");
    }
    int result = 0;
    const char* end = value->data() + value->size();
    const auto [stop, failure] = std::from_chars(value->data(), end, result);
    if (failure != std::errc() || stop != end || result < least || result > most) {
      throw ConfigError("the environment has " + name + "=" + *value + "; it is a number from " +
                        std::to_string(least) + " to " + std::to_string(most));
    }
    return result;
  }
  int number_or(const std::string& name, int standard, int least, int most) const {
    return has(name) ? number(name, name, least, most) : standard;
  }

  // rank of size, from two variables of which at least one is set.
  void rank_of(const std::string& rank_name, const std::string& size_name, int* rank,
               int* size) const {
    *size = number(size_name, rank_name, 1, most_ranks);
    *rank = number(rank_name, size_name, 0, most_ranks);
    if (*rank >= *size) {
      throw ConfigError("the environment has " + rank_name + "=" + text(rank_name) + " and " +
                        size_name + "=" + text(size_name) + "; ranks count from 0");
    }
  }

 private:
  const Variables& variables_;
};

// Where ranks meet, as MASTER_ADDR and MASTER_PORT have it; false when neither is set.
bool read_address(const Reader& read, RankPlace& place) {
  if (!read.has("MASTER_ADDR") && !read.has("MASTER_PORT")) return false;
  place.port = read.number("MASTER_PORT", "MASTER_ADDR", 1, 65535);
  if (!read.has("MASTER_ADDR")) {
    throw ConfigError("the environment has MASTER_PORT=" + read.text("MASTER_PORT") +
                      " but no MASTER_ADDR: set both");
  }
  place.address = read.text("MASTER_ADDR");
  return true;
}

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.rfind("127.", 0) == 0;
}

RankEnvironment open_mpi(const Reader& read) {
  RankEnvironment found;
  RankPlace& place = found.place;
  const std::string world = "OMPI_COMM_WORLD_";
  read.rank_of(world + "RANK", world + "SIZE", &place.rank, &place.size);
  read.rank_of(world + "LOCAL_RANK", world + "LOCAL_SIZE", &place.local_rank, &place.local_size);
  found.launcher = "mpirun";
  found.communicator = "mpi";
  found.supervised = read.has(supervised_variable);
  place.job = read.text("PMIX_NAMESPACE");
  read_address(read, place);
  return found;
}

// How many of the step's tasks are on node number `node`: "2(x3),1" is 2, 2, 2, 1.
int tasks_on_node(const std::string& counts, int node) {
  std::size_t at = 0;
  while (at < counts.size()) {
    const std::size_t end = std::min(counts.find(',', at), counts.size());
    const std::string part = counts.substr(at, end - at);
    const std::size_t times = part.find("(x");
    node -= times == std::string::npos ? 1 : std::atoi(part.c_str() + times + 2);
    if (node < 0) return std::atoi(part.c_str());
    at = end + 1;
  }
  return 0;
}

RankEnvironment slurm(const Reader& read) {
  RankEnvironment found;
  RankPlace& place = found.place;
  const bool of_step = read.has("SLURM_STEP_NUM_TASKS");
  read.rank_of("SLURM_PROCID", of_step ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS", &place.rank,
               &place.size);
  place.local_rank = read.number("SLURM_LOCALID", "SLURM_PROCID", 0, place.size - 1);
  const int node = read.number_or("SLURM_NODEID", 0, 0, most_ranks);
  const int here = tasks_on_node(read.text("SLURM_STEP_TASKS_PER_NODE"), node);
  place.local_size = std::clamp(here, place.local_rank + 1, place.size);
  found.launcher = "srun";
  place.job = read.text("SLURM_JOB_ID") + "." + read.text("SLURM_STEP_ID");
  const bool meets = read_address(read, place);
  // srun --mpi=pmix hands every task what Open MPI needs to find the others.
  found.communicator = read.has("PMIX_RANK") ? "mpi" : "tcp";
  if (!meets) {
    const auto nodes = expand_node_list(read.text("SLURM_STEP_NODELIST"));
    if (nodes.empty() && found.communicator == "tcp") {
      throw ConfigError(
          "the environment has SLURM_PROCID but neither SLURM_STEP_NODELIST nor MASTER_ADDR: "
          "nothing says where rank 0 is");
    }
    if (!nodes.empty()) place.address = nodes.front();
    // Jobs that share the node differ in their number, steps of one job in theirs.
    const auto job = static_cast<std::uint64_t>(std::atoll(read.text("SLURM_JOB_ID").c_str()));
    const auto step = static_cast<std::uint64_t>(std::atoll(read.text("SLURM_STEP_ID").c_str()));
    place.port = static_cast<int>(20000 + (job * 16 + step % 16) % 12000);
  }
  return found;
}

// Where torchrun's agent itself listens at MASTER_PORT, as it says, the ranks meet behind it.
void step_aside(const Reader& read, RankPlace& place) {
  if (read.text("TORCHELASTIC_USE_AGENT_STORE") != "True") return;
  place.port += place.port < 65535 ? 1 : -1;
}

// torchrun and all who set its variables; PMIx alone, where WORLD_SIZE says how many there are.
RankEnvironment by_variables(const Reader& read, const std::string& rank_name) {
  RankEnvironment found;
  RankPlace& place = found.place;
  read.rank_of(rank_name, "WORLD_SIZE", &place.rank, &place.size);
  const bool meets = read_address(read, place);
  if (meets) step_aside(read, place);
  const bool pmix = read.has("PMIX_RANK");
  found.launcher = pmix ? "a PMIx launcher" : "a launcher that sets RANK and WORLD_SIZE";
  found.communicator = pmix ? "mpi" : "tcp";
  if (place.size > 1 && !meets && !pmix) {
    throw ConfigError("the environment has RANK=" + read.text("RANK") +
                      " and WORLD_SIZE=" + read.text("WORLD_SIZE") +
                      " but no MASTER_ADDR and MASTER_PORT: nothing says where rank 0 listens");
  }
  // Not every launcher says how many ranks a machine has.
  place.local_rank = read.number_or("LOCAL_RANK", 0, 0, place.size - 1);
  const int here = is_loopback(place.address) ? place.size : place.local_rank + 1;
  place.local_size = read.number_or("LOCAL_WORLD_SIZE", here, 1, place.size);
  if (is_loopback(place.address) && !read.has("LOCAL_RANK")) place.local_rank = place.rank;
  if (place.local_rank >= place.local_size) {
    throw ConfigError("the environment has LOCAL_RANK=" + read.text("LOCAL_RANK") +
                      " and LOCAL_WORLD_SIZE=" + read.text("LOCAL_WORLD_SIZE") +
                      "; ranks count from 0");
  }
  place.job = read.text("TORCHELASTIC_RUN_ID");
  return found;
}

// Two launchers may both have set their variables, as a script under srun does that hands RANK on.
// Then they must agree.
void check_agreement(const Reader& read, const RankEnvironment& found, const std::string& names) {
  int rank = found.place.rank, size = found.place.size;
  if (read.has("RANK") || read.has("WORLD_SIZE")) read.rank_of("RANK", "WORLD_SIZE", &rank, &size);
  if (rank == found.place.rank && size == found.place.size) return;
  throw ConfigError("the environment has RANK=" + read.text("RANK") +
                    " and WORLD_SIZE=" + read.text("WORLD_SIZE") + ", but " + names +
                    " make this rank " + std::to_string(found.place.rank) + " of " +
                    std::to_string(found.place.size) + ": unset one of the two");
}

std::optional<RankEnvironment> find(const Reader& read) {
  if (read.has("OMPI_COMM_WORLD_RANK") || read.has("OMPI_COMM_WORLD_SIZE")) {
    RankEnvironment found = open_mpi(read);
    check_agreement(read, found, "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE");
    return found;
  }
  // A batch script has SLURM_PROCID too; only in a step with several tasks is it a rank.
  const std::string tasks = read.text("SLURM_STEP_NUM_TASKS");
  if (read.has("SLURM_STEP_ID") && read.has("SLURM_PROCID") &&
      std::atoi((tasks.empty() ? read.text("SLURM_NTASKS") : tasks).c_str()) > 1) {
    RankEnvironment found = slurm(read);
    check_agreement(read, found, "SLURM_PROCID and SLURM_STEP_NUM_TASKS");
    return found;
  }
  if (read.has("RANK") || read.has("WORLD_SIZE")) return by_variables(read, "RANK");
  if (read.has("PMIX_RANK") && !read.has("SLURM_JOB_ID")) {
    throw ConfigError("the environment has PMIX_RANK=" + read.text("PMIX_RANK") +
                      " but nothing that says how many ranks there are: set RANK and WORLD_SIZE "
                      "for each rank");
  }
  return std::nullopt;
}

}  // namespace

Variables process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  };
}

std::optional<RankEnvironment> rank_environment(const Variables& variables) {
  auto found = find(Reader(variables));
  if (found) found->place.host = host_name();
  return found;
}

std::vector<std::string> expand_node_list(const std::string& list) {
  std::vector<std::string> names;
  std::size_t at = 0;
  while (at < list.size()) {
    // A name, or a stem and what stands in brackets behind it, up to a comma outside of them.
    std::size_t end = at;
    for (bool inside = false; end < list.size() && (inside || list[end] != ','); ++end) {
      if (list[end] == '[') inside = true;
      if (list[end] == ']') inside = false;
    }
    const std::string part = list.substr(at, end - at);
    at = end + 1;
    const std::size_t open = part.find('['), close = part.find(']');
    if (open == std::string::npos || close == std::string::npos || close < open) {
      if (!part.empty()) names.push_back(part);
      continue;
    }
    const std::string stem = part.substr(0, open), rest = part.substr(close + 1);
    const std::string ranges = part.substr(open + 1, close - open - 1);
    for (std::size_t from = 0; from < ranges.size();) {
      const std::size_t stop = std::min(ranges.find(',', from), ranges.size());
      const std::string range = ranges.substr(from, stop - from);
      from = stop + 1;
      const std::size_t dash = range.find('-');
      const std::string first = range.substr(0, dash);
      const std::string last = dash == std::string::npos ? first : range.substr(dash + 1);
      for (long n = std::atol(first.c_str()); n <= std::atol(last.c_str()); ++n) {
        std::string number = std::to_string(n);
        if (number.size() < first.size()) number.insert(0, first.size() - number.size(), '0');
        for (const std::string& name : expand_node_list(stem + number + rest)) {
          names.push_back(name);
        }
      }
    }
  }
  return names;
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

}  // namespace ftrain::launch
