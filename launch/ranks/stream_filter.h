// Takes out of mpirun's standard error what is not for the user: its banners, and the frames of
// ranks. All else goes on unchanged and at once.
//
// A banner stands between two lines of dashes. Those that say how a rank or a machine ended become
// notices; those that nothing is known of go on as they are. Threads: one.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/ranks/rank_report.h"

namespace ftrain::launch {

// What mpirun says about the end of a job.
struct Notice {
  enum class What { killed, exited, left, lost_host, no_daemon };
  What what = What::exited;
  int rank = -1;
  std::string host = {};
  int number = 0;  // the signal, or the exit code
};

class StreamFilter {
 public:
  explicit StreamFilter(std::function<void(std::string_view)> out) : out_(std::move(out)) {}

  void feed(std::string_view bytes);
  // Nothing has come for a while: what looked like the beginning of a banner is none.
  void idle();
  // Nothing comes any more.
  void finish();

  const std::vector<RankReport>& reports() const { return reports_; }
  const std::vector<Notice>& notices() const { return notices_; }
  // Whether what went on ended with a whole line.
  bool line_open() const { return line_open_; }

 private:
  // Takes one thing off the front of what is held; false when more must come first.
  bool take();
  void take_frame(std::size_t end);
  // What stands between its rules.
  void take_banner(std::size_t begin, std::size_t end);
  void take_line(std::string_view line);
  void pass(std::size_t count);

  std::function<void(std::string_view)> out_;
  std::string held_;
  std::vector<RankReport> reports_;
  std::vector<Notice> notices_;
  bool line_open_ = false;
};

}  // namespace ftrain::launch
