#include "launch/ranks/hosts.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <memory>
#include <set>
#include <sstream>

#include "ftrain/base/error.h"
#include "launch/ranks/child.h"
#include "launch/ranks/rank_environment.h"

namespace ftrain::launch {
namespace {

using Clock = std::chrono::steady_clock;

// A host that has not answered by then is left out.
constexpr std::chrono::seconds patience{15};

std::string address_text(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address == nullptr) return {};
  if (address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text, sizeof text);
  } else if (address->sa_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text,
              sizeof text);
  }
  return text;
}

std::set<std::string> own_addresses() {
  std::set<std::string> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    addresses.insert(address_text(one->ifa_addr));
  }
  ::freeifaddrs(list);
  addresses.erase("");
  return addresses;
}

bool is_this_machine(const std::string& name) {
  const std::string mine = host_name();
  if (name == "localhost" || name == mine || name == mine.substr(0, mine.find('.'))) return true;
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (::getaddrinfo(name.c_str(), nullptr, &hints, &list) != 0) return false;
  const auto addresses = own_addresses();
  bool found = false;
  for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
    found = found || addresses.count(address_text(one->ai_addr)) > 0;
  }
  ::freeaddrinfo(list);
  return found;
}

Host read_host(const std::string& entry, const std::string& where) {
  // A colon inside of brackets, or one of several without them, belongs to an address.
  const std::size_t bracket = entry.rfind(']'), colon = entry.rfind(':');
  Host host{entry, 1};
  if (colon != std::string::npos && (bracket == std::string::npos || colon > bracket)) {
    host.name = entry.substr(0, colon);
    const char* end = entry.data() + entry.size();
    const auto [stop, failure] = std::from_chars(entry.data() + colon + 1, end, host.slots);
    if (failure != std::errc() || stop != end || host.slots < 1 || host.slots > 4096 ||
        host.name.find(':') < host.name.find('[')) {
      throw ConfigError(where + "'" + entry +
                        "' is no host; write \"name:8\" for eight ranks there (1 to 4096), or "
                        "\"name\" for one");
    }
  }
  if (host.name.empty() || host.name.front() == '-' ||
      host.name.find_first_of(" \t,;/") != std::string::npos) {
    throw ConfigError(where + "'" + entry + "' is no host; write \"name:8\" or \"10.0.0.1:8\"");
  }
  return host;
}

}  // namespace

std::vector<Host> read_hosts(const std::vector<std::string>& entries, int processes,
                             const std::string& where) {
  std::vector<Host> hosts;
  int room = 0;
  for (const std::string& entry : entries) {
    const Host host = read_host(entry, where);
    for (const Host& other : hosts) {
      if (other.name == host.name) {
        throw ConfigError(where + "'" + host.name +
                          "' stands there twice; give its ranks in one "
                          "entry, as in \"" +
                          host.name + ":" + std::to_string(host.slots + other.slots) + "\"");
      }
    }
    room += host.slots;
    hosts.push_back(host);
  }
  if (!hosts.empty() && room < processes) {
    throw ConfigError(where + "the hosts have room for " + std::to_string(room) +
                      " ranks, but launch.processes is " + std::to_string(processes) +
                      "; write more hosts, or more ranks behind their names, as in \"" +
                      hosts.front().name + ":" +
                      std::to_string(processes - room + hosts.front().slots) + "\"");
  }
  return hosts;
}

std::string agent_command(const std::string& agent) {
  // Nobody is there to type a password.
  return agent.empty() ? "ssh -x -o BatchMode=yes -o ConnectTimeout=5" : agent;
}

Question by_agent(const std::string& agent) {
  return [agent](const Host& host) {
    std::istringstream text(agent_command(agent));
    std::vector<std::string> words;
    for (std::string word; text >> word;) words.push_back(word);
    words.push_back(host.name);
    words.emplace_back("true");
    return words;
  };
}

Question by_mpirun(const std::string& mpirun, const std::string& agent) {
  return [mpirun, agent](const Host& host) {
    return std::vector<std::string>{
        mpirun,  "--allow-run-as-root", "--oversubscribe",    "-np", "1", "--host", host.name,
        "--mca", "plm_rsh_agent",       agent_command(agent), "true"};
  };
}

std::vector<Host> answering(const std::vector<Host>& hosts, const Question& question,
                            const std::atomic<int>& stop) {
  std::vector<std::unique_ptr<Child>> questions;
  for (const Host& host : hosts) {
    const bool here = is_this_machine(host.name);
    questions.push_back(here ? nullptr : std::make_unique<Child>(question(host)));
  }
  const auto open = [](const auto& child) { return child && !child->ended(); };
  for (const auto deadline = Clock::now() + patience; Clock::now() < deadline;) {
    const auto waiting = std::find_if(questions.begin(), questions.end(), open);
    if (waiting == questions.end()) break;
    if (stop.load() != 0) return {};
    (*waiting)->read(
        std::chrono::milliseconds(20), [](auto) {}, [](auto) {});
  }
  std::vector<Host> found;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    if (!questions[i] || questions[i]->ended() == 0) found.push_back(hosts[i]);
  }
  return found;
}

std::vector<Host> take(const std::vector<Host>& hosts, int processes) {
  std::vector<Host> taken;
  for (const Host& host : hosts) {
    if (processes <= 0) break;
    taken.push_back({host.name, std::min(host.slots, processes)});
    processes -= taken.back().slots;
  }
  if (processes > 0) taken.clear();
  return taken;
}

std::string host_list(const std::vector<Host>& hosts) {
  std::string text;
  for (const Host& host : hosts) {
    text += (text.empty() ? "" : ",") + host.name + ":" + std::to_string(host.slots);
  }
  return text;
}

}  // namespace ftrain::launch
