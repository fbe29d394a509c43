#include "launch/image_list.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/data/files.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"

namespace ftrain::launch {
namespace {

namespace fs = std::filesystem;

bool is_image(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png" || extension == ".ppm";
}

std::vector<std::string> images_below(const fs::path& folder) {
  std::vector<std::string> files;
  try {
    for (auto it = fs::recursive_directory_iterator(folder); it != fs::end(it); ++it) {
      const fs::path& path = it->path();
      if (path.filename().string().starts_with(".")) {
        if (it->is_directory()) it.disable_recursion_pending();
        continue;
      }
      if (it->is_regular_file() && is_image(path)) files.push_back(path.string());
    }
  } catch (const fs::filesystem_error& error) {
    throw DataError(error.path1().string() + ": cannot be listed: " + error.code().message());
  }
  if (files.empty()) {
    throw DataError(folder.string() +
                    ": neither the folder nor those below it hold an image (.jpg, .jpeg, .png, "
                    ".ppm)");
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

ImageList::ImageList(const std::vector<std::string>& words, Assembly& assembly) {
  for (const std::string& word : words) add_word(word, assembly);
}

void ImageList::add_word(const std::string& word, Assembly& assembly) {
  if (fs::is_directory(word)) {
    add({.files = images_below(word)});
    return;
  }
  if (fs::exists(word)) {
    // Files one after another are one part.
    if (!parts_.empty() && !parts_.back().files.empty()) {
      parts_.back().files.push_back(word);
      ++parts_.back().count;
    } else {
      add({.files = {word}});
    }
    return;
  }
  if (word == "dataset") {
    assembly.dataset->open(assembly.seed());
    add({.dataset = assembly.dataset.get()});
    return;
  }
  std::vector<std::string> known{"dataset"};
  for (NamedPairs& set : assembly.pair_sets) {
    known.push_back(set.name);
    if (set.name != word) continue;
    set.pairs->open(set.file, assembly.seed());
    add({.pairs = set.pairs.get()});
    return;
  }
  throw DataError(std::string(missing_path(word, "file or folder").what()) +
                  " The job's own sets are " + join(known) + ".");
}

void ImageList::add(Part part) {
  part.first = size();
  part.count = part.dataset != nullptr ? part.dataset->size()
               : part.pairs != nullptr ? part.pairs->images()
                                       : static_cast<std::int64_t>(part.files.size());
  parts_.push_back(std::move(part));
}

std::int64_t ImageList::size() const {
  return parts_.empty() ? 0 : parts_.back().first + parts_.back().count;
}

std::pair<const ImageList::Part*, std::int64_t> ImageList::find(std::int64_t image) const {
  const auto next = std::upper_bound(
      parts_.begin(), parts_.end(), image,
      [](std::int64_t i, const Part& part) { return i < part.first + part.count; });
  return {&*next, image - next->first};
}

std::vector<std::uint8_t> ImageList::read(std::int64_t image) const {
  const auto [part, i] = find(image);
  if (part->dataset != nullptr) {
    Sample sample;
    part->dataset->read(i, sample);
    return std::move(sample.bytes);
  }
  if (part->pairs != nullptr) return part->pairs->image(i);
  const std::string& file = part->files[static_cast<std::size_t>(i)];
  std::ifstream stream(file, std::ios::binary);
  std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw DataError(file + ": the image cannot be read");
  return bytes;
}

std::string ImageList::name(std::int64_t image) const {
  const auto [part, i] = find(image);
  if (part->dataset != nullptr) return part->dataset->describe_sample(i);
  if (part->pairs != nullptr) return part->pairs->describe_image(i);
  return part->files[static_cast<std::size_t>(i)];
}

}  // namespace ftrain::launch
