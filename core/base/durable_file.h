// A file that is written once, from its beginning, and is on the disk when close() returns.
//
// Ownership: an object that is destroyed before close() removes its file. Threads: one.
// Failure: DataError that names the file, the reason (disk full, ...) and the way out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "ftrain/plugin/api.h"

namespace ftrain {

// What was written: enough to notice later that the file changed.
struct FileSeal {
  std::uint64_t bytes = 0;
  std::uint64_t xxh3 = 0;  // XXH3-64 of the whole file
  bool operator==(const FileSeal&) const = default;
};

class DurableFile {
 public:
  explicit DurableFile(const std::filesystem::path& path);
  ~DurableFile();
  void write(const void* data, std::size_t bytes);
  // Forces the content to the disk.
  FileSeal close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// ".NAME.tmp": what is not finished stands beside its place under this name.
std::string hidden_name(const std::string& name);

// Replaces `path` by a file of this content, atomically: readers see the old one or the new one.
FTRAIN_API void replace_file(const std::filesystem::path& path, std::string_view content);

// Forces a folder's entries (new names, renames) to the disk.
void sync_folder(const std::filesystem::path& folder);

// "DIR: cannot VERB: No space left on device; free some space ..." for the current errno `code`.
[[noreturn]] void throw_write_error(const std::filesystem::path& path, const std::string& verb,
                                    int code);

}  // namespace ftrain
