#include "core/base/durable_file.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain {

void throw_write_error(const std::filesystem::path& path, const std::string& verb, int code) {
  std::string way_out;
  switch (code) {
    case ENOSPC:
    case EDQUOT:
      way_out = "; free some space, or keep fewer checkpoints";
      break;
    case EFBIG:
      way_out = "; raise the limit on file sizes (ulimit -f)";
      break;
    case EROFS:
    case EACCES:
    case EPERM:
      way_out = "; choose a folder that can be written";
      break;
    case EIO:
      way_out = "; check the disk";
      break;
    default:
      break;
  }
  throw DataError(path.string() + ": cannot " + verb + ": " + std::strerror(code) + way_out);
}

struct DurableFile::State {
  std::filesystem::path path;
  int descriptor = -1;
  std::uint64_t bytes = 0;
  XXH3_state_t* hash = nullptr;
  bool closed = false;
};

DurableFile::DurableFile(const std::filesystem::path& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (state_->descriptor < 0) throw_write_error(path, "create", errno);
  state_->hash = XXH3_createState();
  XXH3_64bits_reset(state_->hash);
}

DurableFile::~DurableFile() {
  XXH3_freeState(state_->hash);
  if (state_->descriptor >= 0) ::close(state_->descriptor);
  if (!state_->closed) ::unlink(state_->path.c_str());
}

void DurableFile::write(const void* data, std::size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    // Pieces small enough that the hash finds them in the cache.
    const std::size_t piece = std::min<std::size_t>(bytes, std::size_t{1} << 20);
    const ssize_t written = ::write(state_->descriptor, next, piece);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_write_error(state_->path, "write", errno);
    }
    const std::size_t done = static_cast<std::size_t>(written);
    XXH3_64bits_update(state_->hash, next, done);
    state_->bytes += done;
    next += done;
    bytes -= done;
  }
}

FileSeal DurableFile::close() {
  if (::fsync(state_->descriptor) != 0) throw_write_error(state_->path, "write", errno);
  const int descriptor = std::exchange(state_->descriptor, -1);
  if (::close(descriptor) != 0) throw_write_error(state_->path, "write", errno);
  state_->closed = true;
  return {state_->bytes, XXH3_64bits_digest(state_->hash)};
}

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw_write_error(folder, "open", errno);
  // Some network file systems cannot sync a folder and say EINVAL: nothing more can be done there.
  const int code = ::fsync(descriptor) != 0 && errno != EINVAL ? errno : 0;
  ::close(descriptor);
  if (code != 0) throw_write_error(folder, "write", code);
}

std::string hidden_name(const std::string& name) {
  std::string result(1, '.');
  result += name;
  result += ".tmp";
  return result;
}

void replace_file(const std::filesystem::path& path, std::string_view content) {
  const std::filesystem::path beside = path.parent_path() / hidden_name(path.filename().string());
  DurableFile file(beside);
  file.write(content.data(), content.size());
  file.close();
  if (::rename(beside.c_str(), path.c_str()) != 0) {
    const int code = errno;
    ::unlink(beside.c_str());
    throw_write_error(path, "replace", code);
  }
  sync_folder(path.parent_path().empty() ? "." : path.parent_path());
}

}  // namespace ftrain
