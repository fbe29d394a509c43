#include "launch/ranks/stream_filter.h"

#include <algorithm>
#include <regex>
#include <string>

namespace ftrain::launch {
namespace {

// What lines of dashes around banners have at least.
const std::string dashes(60, '-');

// Lines of mpirun that stand outside of banners.
const std::string forwarding = "mpirun: Forwarding signal ";
// A rank that can do no more than print says so plainly.
const std::string plain_error = "error: CommunicationError: ";

// What everything that is taken out begins with.
const std::vector<std::string>& openings() {
  static const std::vector<std::string> all{std::string(1, frame_begin), dashes, forwarding,
                                            plain_error};
  return all;
}

// How many of the last bytes may be the beginning of an opening.
std::size_t undecided(std::string_view text) {
  std::size_t most = 0;
  for (const std::string& opening : openings()) {
    for (std::size_t n = std::min(opening.size() - 1, text.size()); n > most; --n) {
      if (text.substr(text.size() - n) == std::string_view(opening).substr(0, n)) {
        most = n;
        break;
      }
    }
  }
  return most;
}

bool find(const std::string& text, const char* pattern, std::smatch& match) {
  return std::regex_search(text, match, std::regex(pattern));
}

// Lines such as "3 total processes killed (some possibly by mpirun during cleanup)", and what Open
// MPI says where a rank that it reads from has died.
bool is_chatter(const std::string& line) {
  static const std::regex pattern(
      "^\\d+ total process(es)? (killed|failed to start).*|"
      "^\\[[^\\]]+\\] (\\d+ more process(es)? ha(s|ve) sent help message|Set MCA parameter|"
      "Read -1, expected \\d+, errno = \\d+).*");
  return std::regex_match(line, pattern);
}

}  // namespace

void StreamFilter::pass(std::size_t count) {
  if (count == 0) return;
  out_(std::string_view(held_).substr(0, count));
  line_open_ = held_[count - 1] != '\n';
  held_.erase(0, count);
}

void StreamFilter::feed(std::string_view bytes) {
  held_ += bytes;
  while (take()) continue;
}

bool StreamFilter::take() {
  std::size_t at = std::string::npos;
  for (const std::string& opening : openings()) at = std::min(at, held_.find(opening));
  // Chatter is a line of its own.
  std::size_t begin = line_open_ ? held_.find('\n') : 0;
  if (line_open_ && begin != std::string::npos) ++begin;
  while (begin < std::min(at, held_.size())) {
    const std::size_t end = held_.find('\n', begin);
    if (end == std::string::npos) break;
    if (end < at && is_chatter(held_.substr(begin, end - begin))) {
      pass(begin);
      held_.erase(0, end - begin + 1);
      return true;
    }
    begin = end + 1;
  }
  if (at == std::string::npos) {
    pass(held_.size() - undecided(held_));
    return false;
  }
  pass(at);
  if (held_[0] == frame_begin) {
    const std::size_t end = held_.find(frame_end);
    if (end == std::string::npos) return false;
    take_frame(end);
    return true;
  }
  if (held_.starts_with(dashes)) {
    const std::size_t width = held_.find_first_not_of('-');
    if (width == std::string::npos) return false;
    if (held_[width] != '\n') {
      pass(width);
      return true;
    }
    const std::string rule = held_.substr(0, width + 1);
    const std::size_t end = held_.find("\n" + rule, width);
    if (end == std::string::npos) return false;
    take_banner(rule.size(), end + 1);
    return true;
  }
  const std::size_t end = held_.find('\n');
  if (end == std::string::npos) return false;
  const std::string line = held_.substr(0, end);
  held_.erase(0, end + 1);
  take_line(line);
  return true;
}

void StreamFilter::take_frame(std::size_t end) {
  if (const auto report = from_frame(std::string_view(held_).substr(1, end - 1))) {
    reports_.push_back(*report);
  }
  held_.erase(0, end + 1);
  if (held_.starts_with("\n")) held_.erase(0, 1);
}

void StreamFilter::take_line(std::string_view line) {
  if (line.starts_with(forwarding)) return;
  line.remove_prefix(plain_error.size());
  reports_.push_back({.what = RankReport::What::failure,
                      .complaint = {"CommunicationError", std::string(line), 4}});
}

void StreamFilter::take_banner(std::size_t begin, std::size_t end) {
  const std::string text = held_.substr(begin, end - begin);
  const std::size_t size = end + begin;  // with the rule that closes it
  using What = Notice::What;
  std::smatch m;
  if (find(text,
           "process\\s+rank\\s+(\\d+)[^]*\\bnode\\s+(\\S+)\\s+exited\\s+on\\s+signal\\s+(\\d+)",
           m)) {
    notices_.push_back({What::killed, std::stoi(m[1]), m[2], std::stoi(m[3])});
  } else if (find(text, "Process name:\\s+\\[\\[\\d+,\\d+\\],(\\d+)\\]\\s+Exit code:\\s+(\\d+)",
                  m)) {
    notices_.push_back({What::exited, std::stoi(m[1]), "", std::stoi(m[2])});
  } else if (find(text, "process\\s+rank\\s+(\\d+)[^]*\\bnode\\s+(\\S+)\\s+exiting\\s+improperly",
                  m)) {
    notices_.push_back({What::left, std::stoi(m[1]), m[2], 0});
  } else if (find(text, "MPI_ABORT was invoked on rank\\s+(\\d+)[^]*errorcode\\s+(-?\\d+)", m)) {
    notices_.push_back({What::exited, std::stoi(m[1]), "", std::stoi(m[2])});
  } else if (find(text, "lost communication with a remote daemon[^]*Remote daemon:.*node\\s+(\\S+)",
                  m)) {
    notices_.push_back({What::lost_host, -1, m[1], 0});
  } else if (find(text, "unable to reliably start one or more daemons", m)) {
    notices_.push_back({What::no_daemon, -1, "", 0});
  } else if (!find(text,
                   "Primary\\s+job\\s+terminated\\s+normally|"
                   "peer\\s+process\\s+has\\s+unexpectedly\\s+disconnected",
                   m)) {
    pass(size);
    return;
  }
  held_.erase(0, size);
}

void StreamFilter::idle() {
  // A rank's frame has an end that only its death keeps back.
  if (!held_.empty() && held_[0] != frame_begin) {
    pass(held_.size());
  }
}

void StreamFilter::finish() {
  while (take()) continue;
  pass(held_.size());
}

}  // namespace ftrain::launch
