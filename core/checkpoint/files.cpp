#include "core/checkpoint/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <set>
#include <system_error>

#include "core/base/durable_file.h"
#include "core/checkpoint/manifest.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"

namespace ftrain {
namespace {

std::string shard_file(const std::string& shard) {
  return shard + ".safetensors";
}

std::string step_name(std::int64_t step) {
  char text[32];
  std::snprintf(text, sizeof text, "step-%08lld", static_cast<long long>(step));
  return text;
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw_write_error(folder, "make the folder", error.value());
}

}  // namespace

struct CheckpointWriter::State {
  std::filesystem::path folder, place, temporary;
  Manifest manifest;

  void list(const std::string& shard, const FileSeal& seal, std::span<const TensorView> tensors) {
    manifest.shards[shard_file(shard)] = seal;
    for (const TensorView& tensor : tensors)
      manifest.tensors[tensor.name] = {shard_file(shard), tensor.dtype, tensor.shape};
  }

  void check_new(const std::string& shard, std::span<const TensorView> tensors) const {
    if (shard.empty() || shard.find('/') != std::string::npos ||
        manifest.shards.contains(shard_file(shard)))
      throw DataError(temporary.string() + ": a shard's name must be a new plain name, got '" +
                      shard + "'");
    for (const TensorView& tensor : tensors)
      if (const auto it = manifest.tensors.find(tensor.name); it != manifest.tensors.end())
        throw DataError(temporary.string() + ": tensor '" + tensor.name + "' is both in shard '" +
                        it->second.shard + "' and in '" + shard_file(shard) + "'");
  }
};

CheckpointWriter::CheckpointWriter(const std::filesystem::path& folder, std::int64_t step,
                                   std::string job)
    : state_(std::make_unique<State>()) {
  if (step < 0) throw DataError("a checkpoint's step is at least 0, got " + std::to_string(step));
  state_->folder = folder;
  state_->place = folder / step_name(step);
  state_->temporary = folder / hidden_name(step_name(step));
  state_->manifest.step = step;
  state_->manifest.job = std::move(job);
  std::error_code ignored;
  std::filesystem::remove_all(state_->temporary, ignored);
  make_folder(state_->temporary);
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  std::filesystem::remove_all(state_->temporary, ignored);
}

const std::filesystem::path& CheckpointWriter::temporary() const {
  return state_->temporary;
}

void CheckpointWriter::add_shard(const std::string& shard, std::span<const TensorView> tensors) {
  state_->check_new(shard, tensors);
  const FileSeal seal = write_safetensors(state_->temporary / shard_file(shard), tensors);
  state_->list(shard, seal, tensors);
}

void CheckpointWriter::adopt_shard(const std::string& shard, const FileSeal& seal) {
  const SafetensorsFile file(state_->temporary / shard_file(shard));
  state_->check_new(shard, file.tensors());
  state_->list(shard, seal, file.tensors());
}

std::filesystem::path CheckpointWriter::commit(const CheckpointExtra& extra) {
  State& s = *state_;
  s.manifest.extra = extra;
  const std::string text = s.manifest.text();
  DurableFile manifest(s.temporary / Manifest::file_name);
  manifest.write(text.data(), text.size());
  manifest.close();
  sync_folder(s.temporary);
  if (::rename(s.temporary.c_str(), s.place.c_str()) != 0) {
    int code = errno;
    if (code == ENOTEMPTY || code == EEXIST) {
      // The step was saved before. Swap the two, then remove the old one, which is now hidden.
      code = ::renameat2(AT_FDCWD, s.temporary.c_str(), AT_FDCWD, s.place.c_str(),
                         RENAME_EXCHANGE) == 0
                 ? 0
                 : errno;
      if (code == EINVAL || code == ENOSYS) {  // a file system that cannot swap
        std::error_code error;
        std::filesystem::remove_all(s.place, error);
        code = ::rename(s.temporary.c_str(), s.place.c_str()) == 0 ? 0 : errno;
      }
    }
    if (code != 0) throw_write_error(s.place, "rename the checkpoint into place", code);
  }
  sync_folder(s.folder);
  return s.place;
}

struct CheckpointReader::State {
  std::filesystem::path path;
  Manifest manifest;
  std::map<std::string, SafetensorsFile> open;  // shards whose checksum holds

  const SafetensorsFile& shard(const std::string& name) {
    if (const auto it = open.find(name); it != open.end()) return it->second;
    const std::filesystem::path file = path / name;
    const FileSeal& expected = manifest.shards.at(name);
    // Before the header is believed: a damaged shard is to be called that.
    const MappedFile mapped(file);
    if (const FileSeal seal = seal_of(mapped); seal != expected)
      throw DataError(file.string() +
                      ": this shard is damaged: its content does not match the manifest's "
                      "checksum; remove the checkpoint to continue from an older one");
    const SafetensorsFile& opened = open.emplace(name, SafetensorsFile(file)).first->second;
    for (const auto& [tensor, entry] : manifest.tensors)
      if (entry.shard == name) {
        const TensorView& view = opened.at(tensor);
        if (view.dtype != entry.dtype || view.shape != entry.shape)
          throw DataError(file.string() + ": tensor '" + tensor +
                          "' has another type or shape than the manifest says");
      }
    return opened;
  }
};

CheckpointReader::CheckpointReader(const std::filesystem::path& checkpoint)
    : state_(std::make_unique<State>()) {
  state_->path = checkpoint;
  state_->manifest = Manifest::read(checkpoint / Manifest::file_name);
  for (const auto& [name, seal] : state_->manifest.shards) {
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(checkpoint / name, error);
    if (error)
      throw DataError((checkpoint / name).string() + ": this shard is missing: " + error.message());
    if (size != seal.bytes)
      throw DataError((checkpoint / name).string() + ": this shard is damaged: it has " +
                      std::to_string(size) + " bytes, the manifest says " +
                      std::to_string(seal.bytes));
  }
}

CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;
CheckpointReader& CheckpointReader::operator=(CheckpointReader&&) noexcept = default;

const std::filesystem::path& CheckpointReader::path() const {
  return state_->path;
}
std::int64_t CheckpointReader::step() const {
  return state_->manifest.step;
}
const std::string& CheckpointReader::job() const {
  return state_->manifest.job;
}
const CheckpointExtra& CheckpointReader::extra() const {
  return state_->manifest.extra;
}

std::vector<std::string> CheckpointReader::names() const {
  std::vector<std::string> result;
  for (const auto& [name, tensor] : state_->manifest.tensors) result.push_back(name);
  return result;
}

bool CheckpointReader::has(std::string_view name) const {
  return state_->manifest.tensors.contains(name);
}

const TensorView& CheckpointReader::view(std::string_view name) {
  const auto it = state_->manifest.tensors.find(name);
  if (it == state_->manifest.tensors.end())
    throw DataError(state_->path.string() + ": holds no tensor '" + std::string(name) + "'." +
                    did_you_mean(name, names()));
  return state_->shard(it->second.shard).at(name);
}

void CheckpointReader::read(std::string_view name, DType dtype, const Shape& shape, void* out) {
  const TensorView& tensor = view(name);
  if (tensor.dtype != dtype || tensor.shape != shape)
    throw DataError(state_->path.string() + ": tensor '" + std::string(name) + "' is " +
                    std::string(safetensors_name(tensor.dtype)) + tensor.shape.text() +
                    ", this job needs " + std::string(safetensors_name(dtype)) + shape.text());
  if (tensor.bytes() > 0) std::memcpy(out, tensor.data, tensor.bytes());
}

void CheckpointReader::forget(std::string_view name, const void* first, std::size_t bytes) {
  const auto it = state_->manifest.tensors.find(name);
  if (it != state_->manifest.tensors.end()) state_->shard(it->second.shard).forget(first, bytes);
}

void CheckpointReader::verify() {
  for (const auto& [name, seal] : state_->manifest.shards) state_->shard(name);
}

}  // namespace ftrain
