#include "core/data/files.h"

#include <string>
#include <vector>

#include "ftrain/base/suggest.h"

namespace ftrain {

namespace fs = std::filesystem;

DataError missing_path(const fs::path& path, std::string_view what) {
  const std::string message = path.string() + ": there is no such " + std::string(what) + ".";
  std::error_code error;
  // The first part of the path that is missing, and the folder that should hold it.
  fs::path missing = fs::absolute(path, error).lexically_normal();
  if (!missing.has_filename()) missing = missing.parent_path();
  while (missing.has_relative_path() && !fs::exists(missing.parent_path(), error))
    missing = missing.parent_path();
  std::vector<std::string> siblings;
  for (fs::directory_iterator entry(missing.parent_path(), error), end; !error && entry != end;
       entry.increment(error))
    siblings.push_back(entry->path().filename().string());
  const std::string name = missing.filename().string();
  const std::string near = did_you_mean(name, siblings);
  return DataError(message + " The folder " + missing.parent_path().string() + " holds no '" +
                   name + "'." + near);
}

}  // namespace ftrain
