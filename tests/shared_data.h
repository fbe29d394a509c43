// Where the real-image test data lie, when they are there at all.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

// The folder `name` ("lfw", "att", "formats") of the shared test data: $FTRAIN_DATA, or
// `shared/data` beside the source tree. Empty when absent: the test then skips and says so.
inline std::filesystem::path shared_data(const std::string& name) {
  const char* set = std::getenv("FTRAIN_DATA");
  const std::filesystem::path root =
      set ? std::filesystem::path(set) : std::filesystem::path(FTRAIN_SOURCE) / "../shared/data";
  const auto folder = root / name;
  return std::filesystem::exists(folder) ? folder : std::filesystem::path();
}

#define FTRAIN_SKIP_WITHOUT(folder)                        \
  if ((folder).empty())                                    \
  GTEST_SKIP() << "the shared image data are not present " \
                  "(set FTRAIN_DATA to their folder)"
