// The images that words on a command line mean: files, folders, or a job's own sets.
//
// Ownership: borrows the assembly's sets, which it opens. Threads: read() and name() from any one.
// Failure: DataError naming the word, with near names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/train/assembly.h"

namespace ftrain::launch {

class ImageList {
 public:
  // A word is a file, a folder (all JPEG, PNG and PPM images in it and below, by name), "dataset"
  // (the job's training set) or the name of one of its verification sets.
  ImageList(const std::vector<std::string>& words, Assembly& assembly);

  std::int64_t size() const;
  std::vector<std::uint8_t> read(std::int64_t image) const;
  // The file, or as its set describes it.
  std::string name(std::int64_t image) const;

 private:
  // A run of images of one kind.
  struct Part {
    std::int64_t first = 0, count = 0;
    std::vector<std::string> files = {};
    const Dataset* dataset = nullptr;
    const PairSet* pairs = nullptr;
  };
  void add(Part part);
  void add_word(const std::string& word, Assembly& assembly);
  // The part that holds an image, and its number there.
  std::pair<const Part*, std::int64_t> find(std::int64_t image) const;

  std::vector<Part> parts_;
};

}  // namespace ftrain::launch
