// The machines of [launch] hosts: which there are, which of them answer, which are taken.
//
// Failure: ConfigError for entries that make no sense.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

namespace ftrain::launch {

struct Host {
  std::string name;
  int slots = 1;
};

// "a:8" is eight ranks on a, "a" is one; an address of IP 6 stands in brackets. `where`: what
// messages begin with. Together they have room for `processes` ranks.
std::vector<Host> read_hosts(const std::vector<std::string>& entries, int processes,
                             const std::string& where);

// The agent's command: the key `agent`, or what reaches a host unless told otherwise.
std::string agent_command(const std::string& agent);

// What is run to learn whether a host answers.
using Question = std::function<std::vector<std::string>(const Host&)>;
// `AGENT HOST true`: it can be reached.
Question by_agent(const std::string& agent);
// A rank of no use: it can be reached, has Open MPI, and reaches this machine.
Question by_mpirun(const std::string& mpirun, const std::string& agent);

// Those that answer within some seconds; this machine does without being asked. Ends early, with
// none, when `stop` is set.
std::vector<Host> answering(const std::vector<Host>& hosts, const Question& question,
                            const std::atomic<int>& stop);

// The first hosts that have room for all, none of them with more than its share; empty when there
// is too little.
std::vector<Host> take(const std::vector<Host>& hosts, int processes);

// "a:8,b:8"
std::string host_list(const std::vector<Host>& hosts);

}  // namespace ftrain::launch
