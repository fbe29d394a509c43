// Chooses among kernels by measuring them, once for each distinct problem on a machine.
//
// A Tuner lives as long as one program is prepared. What it finds is shared by all programs and
// ranks of the process and kept in a file (answers.h), so the ranks of a machine choose alike and
// a job run again chooses as before. Threads: one; tuners of several threads wait for each other
// where they measure. Failure: a file that cannot be read or written is worth one warning; a
// candidate that throws loses; what does not fit the free memory is chosen by the fixed order.
#pragma once

#include <memory>

#include "ftrain/device/kernel.h"
#include "plugins/devices/cpu/tune/answers.h"

namespace ftrain::cpu {

class Tuner {
 public:
  // `repeated`: answers that go before all others. All must outlive the tuner.
  Tuner(const KernelList& kernels, const KernelEnvironment& environment, const Answers& repeated);
  // Writes what was measured to the file.
  ~Tuner();

  // As KernelList::choose, but where several kernels are worth it the fastest.
  KernelChoice choose(const Node& node);
  // What the choices so far rest on.
  const Answers& used() const { return used_; }

 private:
  struct Session;  // the sole right to measure, from the first new problem on

  const Answer* known(const std::string& problem, const std::vector<const KernelDef*>& candidates);

  const KernelList& kernels_;
  const KernelEnvironment& environment_;
  const Answers& repeated_;
  const Circumstances circumstances_;
  Answers used_;
  std::unique_ptr<Session> session_;
};

}  // namespace ftrain::cpu
