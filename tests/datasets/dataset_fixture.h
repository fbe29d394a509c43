// What the tests of data sets share: a plugin made from a table's text, a folder for files.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "ftrain/config/table.h"
#include "ftrain/data/dataset.h"
#include "ftrain/data/image.h"
#include "ftrain/plugin/registry.h"

// The data set `plugin`, configured by the lines `keys` of its table and opened.
inline std::unique_ptr<ftrain::Dataset> open_dataset(const std::string& plugin,
                                                     const std::string& keys,
                                                     std::uint64_t seed = 1) {
  static ftrain::Registry registry({FTRAIN_PLUGINS});
  const auto job = ftrain::Job::parse("[dataset]\nplugin = \"" + plugin + "\"\n" + keys);
  auto dataset = registry.create<ftrain::Dataset>(job);
  dataset->open(seed);
  return dataset;
}

inline std::string path_key(const std::filesystem::path& path) {
  return "path = '" + path.string() + "'\n";
}

// What opening, or reading every image, complains of.
template <class E>
std::string complaint(const std::string& plugin, const std::string& keys) {
  try {
    const auto dataset = open_dataset(plugin, keys);
    ftrain::Sample sample;
    for (std::int64_t i = 0; i < dataset->size(); ++i) dataset->read(i, sample);
  } catch (const E& error) {
    return error.what();
  }
  return "no error";
}

// An empty folder of the test's own, gone with it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::path(::testing::TempDir()) /
            (std::string("ftrain_") + test->test_suite_name() + "_" + test->name());
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

  std::filesystem::path write(const std::string& name,
                              const std::vector<std::uint8_t>& bytes) const {
    const auto file = path_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<long>(bytes.size()));
    return file;
  }

 private:
  std::filesystem::path path_;
};
