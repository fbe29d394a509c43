// What measuring kernels answered, and the files in which a machine keeps it.
//
// A file is one JSON object: processor -> circumstances (versions, options) -> problem -> what was
// taken and every candidate's seconds. It may be removed at any time: what is asked again is
// measured again. Failure: DataError where a text is no such file.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ftrain/graph/graph.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

struct Answer {
  std::string kernel;
  std::vector<std::pair<std::string, double>> seconds;  // every candidate's
};

using Answers = std::map<std::string, Answer>;  // by problem

// Under what answers hold.
struct Circumstances {
  std::string processor;  // "AMD EPYC, family 25 model 17 stepping 1"
  std::string rest;       // "oneDNN 2.6.3, ftrain 0.1.0 ..., avx512, 2 threads, winograd"
  auto operator<=>(const Circumstances&) const = default;
};

// An op with its attributes, and the types and layouts of its operands: "conv2d stride=1 ...
// (f32[...], f32[...]) -> f32[...]".
FTRAIN_API std::string problem_of(const Node& node);

// $FTRAIN_CACHE, $XDG_CACHE_HOME/ftrain or ~/.cache/ftrain, and there `name`. Empty when the
// environment names none of them.
FTRAIN_API std::filesystem::path cache_file(const std::string& name);

// The file's text of `answers` alone, and with `answers` added to a file's `text` (empty: a new
// file).
FTRAIN_API std::string text_of(const Answers& answers, const Circumstances& circumstances,
                               std::string_view text = {});
// The answers in a file's text that hold under `circumstances`.
FTRAIN_API Answers answers_in(std::string_view text, const Circumstances& circumstances);

// Empty where there is no such file.
FTRAIN_API std::string content_of(const std::filesystem::path& file);

// A file's lock among processes, held while the object lives. Without one (a read-only folder, a
// file system that has none) the file is read and not written.
class FTRAIN_API FileLock {
 public:
  // Waits for it. Makes the file's folder, and FILE.lock beside it.
  explicit FileLock(const std::filesystem::path& file);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  int failure() const { return failure_; }  // an errno; 0: held

 private:
  int descriptor_ = -1, failure_ = 0;
};

}  // namespace ftrain
