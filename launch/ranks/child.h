// A child process whose output the parent reads. It goes when the parent goes.
//
// Ownership: one that still lives when its Child is destroyed is killed. Threads: one; it must be
// the thread that lives as long as the process. Failure: DeviceError when none can be started.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ftrain::launch {

class Child {
 public:
  // `words`: the program, by its path or its name, and its arguments. It begins a process group of
  // its own, so a key pressed in the terminal does not reach it, and reads nothing.
  // `variables`: "NAME=VALUE", over those of this process.
  explicit Child(const std::vector<std::string>& words,
                 const std::vector<std::string>& variables = {});
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  using Sink = std::function<void(std::string_view)>;
  // Hands on what comes within the time. False when nothing came.
  bool read(std::chrono::milliseconds time, const Sink& out, const Sink& error);
  // Its exit code, or 128 and the signal that ended it; nothing while it runs.
  std::optional<int> ended();
  void signal(int number) const;
  // Whether something that it started lives.
  bool has_living_children() const;
  // It and what it started.
  void kill() const;

 private:
  pid_t process_ = 0;
  int out_ = -1, error_ = -1;
  std::optional<int> code_;
};

// A program's path; empty when no folder of PATH holds one of that name.
std::string find_program(const std::string& name);

}  // namespace ftrain::launch
