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
  std::vector<std::string> folders{"include", "core",
                                   "launch"};  // tests may: no nvcc reads their headers
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

bool is_generated(const std::string& header) {
  return header == "ftrain_headers_hash.h" || header == "ftrain_internal_hash.h";
}

TEST(Structure, TheBorderIncludesNothingButItself) {
  EXPECT_THAT(offenders({"include"},
                        [](const Include& i) {
                          return i.quoted && !i.header.starts_with("ftrain/") &&
                                 !is_generated(i.header);
                        }),
              IsEmpty());
}

TEST(Structure, CoreIncludesNothingButTheBorderAndItself) {
  EXPECT_THAT(offenders({"core"},
                        [](const Include& i) {
                          return i.quoted && !i.header.starts_with("core/") &&
                                 !i.header.starts_with("ftrain/") && !is_generated(i.header);
                        }),
              IsEmpty());
}

// What is told to third parties is done here: heads, backbones, optimizers, strategies and
// schedules are made of public headers alone, and so are the examples.
TEST(Structure, PluginsNeedNoPrivateHeaders) {
  EXPECT_THAT(offenders({"heads", "backbones", "plugins/optimizers", "plugins/parallelism",
                         "plugins/schedules", "examples"},
                        [](const Include& i) { return i.quoted && part(i.header, 0) == "core"; }),
              IsEmpty());
}

TEST(Structure, SiblingsDoNotIncludeEachOther) {
  EXPECT_THAT(offenders(siblings,
                        [](const Include& i) {
                          const std::string room = part(i.header, 0);
                          return i.quoted && room != "core" && room != "ftrain" &&
                                 room != part(i.file, 0) && !is_generated(i.header);
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
                          const std::string room = part(i.header, 0);
                          return i.quoted && room != "core" && room != "ftrain" && room != "launch";
                        }),
              IsEmpty());
}

// An idea includes itself and those before it, in core and on the border alike; headers of one kind
// of plugin (ftrain/backbone.h) are for plugins. model, data, health and checkpoint do not know
// each other, and verification does not know training.
TEST(Structure, CoreIsLayered) {
  using Names = std::vector<std::string>;
  const Names ground{"base", "config", "plugin"};
  const auto above = [](Names below, const Names& more) {
    below.insert(below.end(), more.begin(), more.end());
    return below;
  };
  const Names graph = above(ground, {"graph", "ops"});
  const Names device = above(graph, {"device"});
  const Names all = above(device, {"compile", "model", "head", "optimizer", "cuda", "data",
                                   "verify", "checkpoint", "health", "observer"});
  const std::vector<std::pair<std::string, Names>> layers{
      {"base", {}},
      {"config", {"base"}},
      {"plugin", {"base", "config"}},
      // gradients() adds what meets, so the graph knows that one op.
      {"graph", above(ground, {"ops"})},
      {"ops", graph},
      {"device", device},
      {"compile", above(device, {"compile"})},
      {"health", above(device, {"health"})},
      {"cuda", device},
      {"model", device},
      {"head", above(device, {"model", "cuda"})},
      {"optimizer", above(device, {"model", "cuda"})},
      {"data", device},
      {"verify", above(device, {"model", "data"})},
      {"observer", above(device, {"verify"})},
      {"checkpoint", device},
      {"train", all}};
  // "core/graph/graph.h" and "ftrain/graph/graph.h" -> "graph"; "ftrain/observer.h" -> "observer".
  const auto room = [](const std::string& path) {
    const std::string inner = path.starts_with("include/") ? path.substr(8) : path;
    const std::string name = part(inner, 1);
    if (!name.empty() || !inner.starts_with("ftrain/")) return name;
    return inner == "ftrain/observer.h" ? std::string("observer") : std::string();
  };
  EXPECT_THAT(
      offenders(
          {"core", "include"},
          [&](const Include& i) {
            // Visibility marks are for everyone.
            if (!i.quoted || i.header == "ftrain/plugin/api.h") return false;
            if (is_generated(i.header)) return false;
            const std::string own = room(i.file), other = room(i.header);
            if (own.empty()) return false;  // what a kind of plugin includes
            // What plugins register: the registry keeps kernels and asks nothing of them.
            if (i.file == "core/plugin/registry.cpp" && i.header == "ftrain/device/kernel.h") {
              return false;
            }
            if (i.header == "ftrain/ops.h")
              return own != "ops" && own != "graph" && own != "model" && own != "compile" &&
                     own != "train";
            const auto layer = std::find_if(layers.begin(), layers.end(),
                                            [&](const auto& l) { return l.first == own; });
            if (layer == layers.end()) return true;  // a folder that nobody placed
            const auto& below = layer->second;
            return other != own && std::find(below.begin(), below.end(), other) == below.end();
          }),
      IsEmpty());
}

// What a pass or a command wants to know of an op is a fact of its definition: nobody compares its
// name with a text. Kernels may, which are an op's own.
TEST(Structure, NobodyAsksForAnOpByName) {
  std::vector<std::string> places;
  for (const Line& line : lines_of({"core", "launch", "include", "plugins/devices/cpu/rewrite",
                                    "plugins/devices/cuda/rewrite", "plugins/devices/cpu/device",
                                    "plugins/devices/cuda/device", "plugins/devices/cpu/tune"})) {
    const std::size_t at = line.text.find("op->name");
    if (at == std::string::npos) continue;
    const std::string_view behind = std::string_view(line.text).substr(at + 8);
    const std::string_view before = std::string_view(line.text).substr(0, at);
    const bool compared = behind.starts_with(" == ") || behind.starts_with(" != ") ||
                          behind.starts_with(".starts_with") || behind.starts_with(".ends_with") ||
                          behind.starts_with(".find") || behind.starts_with(".contains") ||
                          before.find(".contains(") != before.npos ||
                          before.find("string_view") != before.npos;
    if (compared) places.push_back(line.place());
  }
  EXPECT_THAT(places, IsEmpty());
}

TEST(Structure, IncludesStartAtTheRoot) {
  EXPECT_THAT(offenders(all_folders(),
                        [](const Include& i) {
                          return i.quoted &&
                                 (i.header.find("../") != std::string::npos ||
                                  (i.file.starts_with("core/") && part(i.header, 0).empty() &&
                                   !is_generated(i.header)));
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
