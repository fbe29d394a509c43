#include "launch/ranks/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "ftrain/base/error.h"

namespace ftrain::launch {
namespace {

// Signals as a program expects them, whatever its parent does with its own.
void reset_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2}) {
    ::signal(number, SIG_DFL);
  }
}

}  // namespace

Child::Child(const std::vector<std::string>& words, const std::vector<std::string>& variables) {
  std::vector<char*> arguments, environment;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  for (const std::string& one : variables) environment.push_back(const_cast<char*>(one.c_str()));
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string_view name(*one, std::strcspn(*one, "=") + 1);
    const bool other = std::any_of(variables.begin(), variables.end(), [&](const auto& variable) {
      return std::string_view(variable).starts_with(name);
    });
    if (!other) environment.push_back(*one);
  }
  environment.push_back(nullptr);
  std::array<int, 2> out{}, error{};
  if (::pipe2(out.data(), O_CLOEXEC) != 0) {
    throw DeviceError(std::string("no pipe can be made: ") + std::strerror(errno));
  }
  if (::pipe2(error.data(), O_CLOEXEC) != 0) {
    const std::string reason = std::strerror(errno);
    for (const int end : out) ::close(end);
    throw DeviceError("no pipe can be made: " + reason);
  }
  const pid_t parent = ::getpid();
  process_ = ::fork();
  if (process_ == 0) {
    // Only calls that are safe between fork and exec.
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(126);
    reset_signals();
    ::dup2(::open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(error[1], STDERR_FILENO);
    ::execvpe(arguments[0], arguments.data(), environment.data());
    ::_exit(127);
  }
  const std::string reason = std::strerror(errno);
  ::close(out[1]);
  ::close(error[1]);
  out_ = out[0];
  error_ = error[0];
  if (process_ < 0) {
    ::close(out_);
    ::close(error_);
    throw DeviceError(words[0] + " cannot be started: " + reason);
  }
  ::setpgid(process_, process_);
}

Child::~Child() {
  if (!ended()) {
    kill();
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) continue;
  }
  if (out_ >= 0) ::close(out_);
  if (error_ >= 0) ::close(error_);
}

bool Child::read(std::chrono::milliseconds time, const Sink& out, const Sink& error) {
  std::array<pollfd, 2> ends{pollfd{out_, POLLIN, 0}, pollfd{error_, POLLIN, 0}};
  if (out_ < 0 && error_ < 0) {
    ::poll(nullptr, 0, static_cast<int>(time.count()));
    return false;
  }
  if (::poll(ends.data(), ends.size(), static_cast<int>(time.count())) <= 0) return false;
  bool came = false;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (ends[i].fd < 0 || ends[i].revents == 0) continue;
    std::array<char, 16384> bytes;
    const auto size = ::read(ends[i].fd, bytes.data(), bytes.size());
    if (size > 0) {
      (i == 0 ? out : error)({bytes.data(), static_cast<std::size_t>(size)});
      came = true;
    } else if (size == 0 || errno != EINTR) {
      ::close(ends[i].fd);
      (i == 0 ? out_ : error_) = -1;
    }
  }
  return came;
}

std::optional<int> Child::ended() {
  if (code_) return code_;
  int status = 0;
  if (::waitpid(process_, &status, WNOHANG) != process_) return std::nullopt;
  code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return code_;
}

bool Child::has_living_children() const {
  namespace fs = std::filesystem;
  std::error_code failure;
  for (const auto& task :
       fs::directory_iterator("/proc/" + std::to_string(process_) + "/task", failure)) {
    std::ifstream children(task.path() / "children");
    if (!children) return true;  // this system does not say
    for (pid_t child = 0; children >> child;) {
      // "PID (NAME) STATE ...", where NAME may hold anything.
      std::string stat;
      std::getline(std::ifstream("/proc/" + std::to_string(child) + "/stat"), stat);
      const std::size_t end = stat.rfind(')');
      if (end == std::string::npos || end + 2 >= stat.size()) continue;
      if (stat[end + 2] != 'Z' && stat[end + 2] != 'X') return true;
    }
  }
  return false;
}

void Child::signal(int number) const {
  if (!code_) ::kill(process_, number);
}

void Child::kill() const {
  if (!code_) ::kill(-process_, SIGKILL);
}

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string folders = path ? path : "/usr/local/bin:/usr/bin:/bin";
  for (std::size_t at = 0; at <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', at), folders.size());
    const std::string file = folders.substr(at, end - at) + "/" + name;
    if (file.front() == '/' && ::access(file.c_str(), X_OK) == 0) return file;
    at = end + 1;
  }
  return {};
}

}  // namespace ftrain::launch
