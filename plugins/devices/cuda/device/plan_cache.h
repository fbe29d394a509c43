// What a library's plans were found to be: asked once for each problem, kept in a file.
//
// Where an answer comes from, in this order: repeat(), the file, measuring. Measuring happens under
// the file's lock, one problem at a time: the ranks of a machine take the same answers, and several
// libraries cannot wait for each other in a circle. The file is that of
// core/compile/tuning_cache.h, with the GPU as the processor.
//
// Threads: one for an object. Failure: a file that cannot be read or written is worth one warning;
// what `measure` throws goes on.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "core/compile/tuning_cache.h"

namespace ftrain::cuda {

class PlanCache {
 public:
  struct Measured {
    Answer answer;
    bool lasting = true;  // false: holds for this process alone (a guess: memory was short)
  };

  // `file`: empty keeps nothing. `what`: "algorithms of cuBLASLt", for warnings.
  PlanCache(std::filesystem::path file, Circumstances circumstances, std::string what);

  // The answer to a problem. `suits`, where given, may refuse one that was not measured here.
  const Answer& answer(const std::string& problem, const std::function<Measured()>& measure,
                       const std::function<bool(const Answer&)>& suits = {});

  // The answers given so far, as text for repeat(). What was found under other circumstances is
  // passed over there. DataError when the text is none.
  std::string used() const;
  void repeat(std::string_view text);

 private:
  Answers read_file() const;
  void add_to_file(const std::string& problem, const Answer& answer) const;
  void warn(const std::string& line) const;

  std::filesystem::path file_;
  Circumstances circumstances_;
  std::string what_;
  Answers repeated_, known_, used_;
  bool read_ = false;
  mutable bool warned_ = false;
};

}  // namespace ftrain::cuda
