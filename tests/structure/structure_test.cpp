// The rules of the house that no compiler checks: who includes whom, where outside libraries may be
// seen, and how wide a line is. docs/design.md says why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using testing::IsEmpty;

const fs::path root = FTRAIN_SOURCE;
const std::vector<std::string> siblings{"plugins", "backbones", "heads", "datasets"};

struct Line {
  std::string file;  // relative to the root
  std::size_t number = 0;
  std::string text;
  std::string place() const { return file + ":" + std::to_string(number) + ": " + text; }
};

struct Include : Line {
  std::string header;
  bool quoted = false;
};

bool is_source(const fs::path& path) {
  static const std::set<std::string> extensions{".h", ".cpp", ".cu", ".cuh"};
  return extensions.contains(path.extension().string());
}

std::vector<Line> lines_of(const std::vector<std::string>& folders) {
  std::vector<Line> lines;
  for (const std::string& folder : folders) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      std::ifstream in(entry.path());
      Line line{fs::relative(entry.path(), root).string(), 0, {}};
      while (std::getline(in, line.text)) {
        ++line.number;
        lines.push_back(line);
      }
    }
  }
  return lines;
}

std::vector<Include> includes_of(const std::vector<std::string>& folders) {
  std::vector<Include> includes;
  for (const Line& line : lines_of(folders)) {
    const std::size_t hash = line.text.find_first_not_of(" \t");
    if (hash == std::string::npos || line.text[hash] != '#') continue;
    const std::size_t word = line.text.find("include", hash);
    const std::size_t open = line.text.find_first_of("<\"", hash);
    if (word == std::string::npos || open == std::string::npos) continue;
    const bool quoted = line.text[open] == '"';
    const std::size_t close = line.text.find(quoted ? '"' : '>', open + 1);
    includes.push_back({line, line.text.substr(open + 1, close - open - 1), quoted});
  }
  return includes;
}

std::vector<std::string> all_folders() {
  std::vector<std::string> folders{"include", "core", "launch", "tests", "bench", "examples"};
  folders.insert(folders.end(), siblings.begin(), siblings.end());
  return folders;
}

// "ftrain/ops.h", 1 -> "graph". Empty when the path is not that deep.
std::string part(const std::string& path, std::size_t depth) {
  std::size_t start = 0;
  for (; depth > 0; --depth) {
    start = path.find('/', start);
    if (start == std::string::npos) return {};
    ++start;
  }
  const std::size_t end = path.find('/', start);
  return end == std::string::npos ? std::string() : path.substr(start, end - start);
}

bool is_header(const std::string& file) {
  return file.ends_with(".h") || file.ends_with(".cuh");
}

using Rule = std::function<bool(const Include&)>;

// The places of the includes that break a rule.
std::vector<std::string> offenders(const std::vector<std::string>& folders, const Rule& broken) {
  std::vector<std::string> places;
  for (const Include& include : includes_of(folders)) {
    if (broken(include)) places.push_back(include.place());
  }
  return places;
}

TEST(Structure, SourcesAreFound) {
  EXPECT_GT(includes_of({"core"}).size(), 100u);
}

TEST(Structure, TomlIsSeenInConfigAlone) {
  EXPECT_THAT(offenders(all_folders(),
                        [](const Include& i) {
                          return i.header.starts_with("toml") &&
                                 !(i.file.starts_with("core/config/") && !is_header(i.file));
                        }),
              IsEmpty());
}

TEST(Structure, BoostDllIsSeenInTheLoaderAlone) {
  EXPECT_THAT(offenders(all_folders(),
                        [](const Include& i) {
                          return i.header.starts_with("boost/dll") &&
                                 i.file != "core/plugin/loader.cpp";
                        }),
              IsEmpty());
}

TEST(Structure, LogAndJsonLibrariesAreInNoHeader) {
  std::vector<std::string> folders{"core", "launch"};  // tests may: no nvcc reads their headers
  folders.insert(folders.end(), siblings.begin(), siblings.end());
  EXPECT_THAT(offenders(folders,
                        [](const Include& i) {
                          const bool outside = i.header.starts_with("spdlog/") ||
                                               i.header.starts_with("fmt/") ||
                                               i.header.starts_with("nlohmann/");
                          return outside && is_header(i.file);
                        }),
              IsEmpty());
}

TEST(Structure, CoreIncludesNothingButCore) {
  EXPECT_THAT(offenders({"core"},
                        [](const Include& i) {
                          return i.quoted && !i.header.starts_with("core/") &&
                                 i.header != "ftrain_headers_hash.h";
                        }),
              IsEmpty());
}

TEST(Structure, SiblingsDoNotIncludeEachOther) {
  EXPECT_THAT(offenders(siblings,
                        [](const Include& i) {
                          return i.quoted && part(i.header, 0) != "core" &&
                                 part(i.header, 0) != part(i.file, 0);
                        }),
              IsEmpty());
  // Within plugins/: a device knows no optimizer, a strategy no device.
  EXPECT_THAT(offenders({"plugins"},
                        [](const Include& i) {
                          return i.quoted && part(i.header, 0) == "plugins" &&
                                 part(i.header, 1) != part(i.file, 1);
                        }),
              IsEmpty());
}

TEST(Structure, LaunchIncludesCoreAndItself) {
  EXPECT_THAT(offenders({"launch"},
                        [](const Include& i) {
                          return i.quoted && part(i.header, 0) != "core" &&
                                 part(i.header, 0) != "launch";
                        }),
              IsEmpty());
}

// An idea includes itself and those before it. model and data do not know each other, and
// verification does not know training.
TEST(Structure, CoreIsLayered) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> layers{
      {"base", {}},
      {"config", {"base"}},
      {"plugin", {"base", "config"}},
      {"graph", {"base", "config", "plugin"}},
      {"runtime", {"base", "config", "plugin", "graph"}},
      {"model", {"base", "config", "plugin", "graph", "runtime"}},
      {"data", {"base", "config", "plugin", "graph", "runtime"}},
      {"verify", {"base", "config", "plugin", "graph", "runtime", "model", "data"}},
      {"train", {"base", "config", "plugin", "graph", "runtime", "model", "data", "verify"}}};
  EXPECT_THAT(offenders({"core"},
                        [&](const Include& i) {
                          // Visibility marks are for everyone.
                          if (!i.header.starts_with("core/") || i.header == "ftrain/plugin/api.h") {
                            return false;
                          }
                          const std::string own = part(i.file, 1), other = part(i.header, 1);
                          const auto layer =
                              std::find_if(layers.begin(), layers.end(),
                                           [&](const auto& l) { return l.first == own; });
                          if (layer == layers.end()) return true;  // a folder that nobody placed
                          const auto& below = layer->second;
                          return other != own &&
                                 std::find(below.begin(), below.end(), other) == below.end();
                        }),
              IsEmpty());
}

TEST(Structure, IncludesStartAtTheRoot) {
  EXPECT_THAT(offenders(all_folders(),
                        [](const Include& i) {
                          return i.quoted &&
                                 (i.header.find("../") != std::string::npos ||
                                  (i.file.starts_with("core/") && part(i.header, 0).empty() &&
                                   i.header != "ftrain_headers_hash.h"));
                        }),
              IsEmpty());
}

TEST(Structure, LinesAreAtMost100ColumnsWide) {
  std::vector<std::string> places;
  for (const Line& line : lines_of(all_folders())) {
    // Columns are characters, not bytes of UTF-8.
    const auto columns = std::count_if(line.text.begin(), line.text.end(),
                                       [](char c) { return (c & 0xc0) != 0x80; });
    if (columns > 100) places.push_back(line.place());
  }
  EXPECT_THAT(places, IsEmpty());
}

TEST(Structure, HeadersAreGuarded) {
  std::set<std::string> headers, guarded;
  for (const Line& line : lines_of(all_folders())) {
    // Highway's headers are included once for each target, with a guard of their own.
    if (!is_header(line.file) || line.file.ends_with("-inl.h")) continue;
    headers.insert(line.file);
    if (line.text == "#pragma once") guarded.insert(line.file);
  }
  std::vector<std::string> bare;
  std::set_difference(headers.begin(), headers.end(), guarded.begin(), guarded.end(),
                      std::back_inserter(bare));
  EXPECT_THAT(bare, IsEmpty());
}

}  // namespace
