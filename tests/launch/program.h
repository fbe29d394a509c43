// Runs the built `ftrain` as a user does, and what its tests share: a small job, a run folder.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace launch_test {

namespace fs = std::filesystem;

inline std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::size_t lines_of(const fs::path& path) {
  const std::string text = read_text(path);
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

struct Result {
  int code = -1;  // 128 + signal when it was killed
  std::string out, err;
};

// The program of this build, or another one, of a bundle say.
inline std::string program_path() {
  const char* other = std::getenv("FTRAIN_TEST_PROGRAM");
  return fs::weakly_canonical(other != nullptr ? other : FTRAIN_PROGRAM).string();
}

// One process of ftrain with its output in files of `folder`.
class Program {
 public:
  // `file_limit`: the largest file that the process may write, in bytes; 0: any. `before`: words of
  // a program that starts it.
  Program(const fs::path& folder, std::vector<std::string> words, rlim_t file_limit = 0,
          const std::vector<std::string>& before = {})
      : out_(folder / "out.txt"), err_(folder / "err.txt") {
    words.insert(words.begin(), program_path());
    words.insert(words.begin(), before.begin(), before.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    process_ = ::fork();
    if (process_ != 0) return;
    // The child: only calls that are safe between fork and exec.
    ::dup2(::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDOUT_FILENO);
    ::dup2(::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDERR_FILENO);
    if (::chdir(folder.c_str()) != 0) ::_exit(126);
    if (file_limit > 0) {
      const rlimit limit{file_limit, file_limit};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      ::signal(SIGXFSZ, SIG_IGN);  // the write fails instead, as on a full disk
    }
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  ~Program() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      wait();
    }
  }

  pid_t process() const { return process_; }
  void signal(int number) const { ::kill(process_, number); }
  Result wait() {
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = 0;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_text(out_),
            read_text(err_)};
  }
  bool running() {
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(process_), &info, WEXITED | WNOHANG | WNOWAIT);
    return info.si_pid == 0;
  }

 private:
  fs::path out_, err_;
  pid_t process_ = 0;
};

// An empty folder for each test; processes run in it.
class Launch : public testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) /
              ("ftrain_launch_" + std::to_string(::getpid()) + "_" + test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write("job.toml", job);
  }
  // What was killed, an mpirun say, may still be clearing up in there.
  void TearDown() override {
    std::error_code failure;
    for (int i = 0; i < 200 && fs::exists(folder_, failure); ++i) {
      fs::remove_all(folder_, failure);
      if (failure) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  Result ftrain(std::vector<std::string> words, rlim_t file_limit = 0) const {
    return Program(folder_, std::move(words), file_limit).wait();
  }
  // run job.toml into runs/NAME.
  static std::vector<std::string> run(const std::string& name,
                                      const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{"run", "job.toml", "--set", "run.folder=runs/" + name};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  fs::path run_folder(const std::string& name) const { return folder_ / "runs" / name; }
  nlohmann::json summary(const std::string& name) const {
    return nlohmann::json::parse(read_text(run_folder(name) / "summary.json"), nullptr, false);
  }
  // What is the same in every run of a job: neither speed nor time.
  std::vector<nlohmann::json> metrics(const std::string& name) const {
    std::ifstream file(run_folder(name) / "metrics.jsonl");
    std::vector<nlohmann::json> result;
    for (std::string line; std::getline(file, line);) {
      result.push_back(nlohmann::json::parse(line, nullptr, false));
      result.back().erase("samples_per_second");
      result.back().erase("data_wait");
    }
    return result;
  }
  // Waits until the run has written so many lines. False when the process ends before.
  bool wait_for_lines(Program& program, const std::string& name, std::size_t lines) const {
    while (lines_of(run_folder(name) / "metrics.jsonl") < lines) {
      if (!program.running()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  fs::path folder_;

  // A network and a data set that take milliseconds a step.
  static constexpr const char* job = R"(name = "small"
seed = 7
[device]
plugin = "cpu"
threads = 1
[backbone]
plugin = "mobilefacenet"
scale = 1
embedding = 16
blocks = [1, 1, 1, 1]
[head]
plugin = "cosface"
scale = 16.0
margin = 0.1
[optimizer]
plugin = "sgd"
rate = 0.05
[schedule]
plugin = "step"
[dataset]
plugin = "portraits"
identities = 12
samples = 4
size = 32
image_size = 32
batch = 4
threads = 2
[verify]
sets = ["portraits"]
[verify.portraits]
identities = 20
pairs = 20
size = 32
[run]
steps = 6
)";
};

}  // namespace launch_test
