#include "launch/embedding_file.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "ftrain/base/error.h"

namespace ftrain::launch {
namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "the header says so");

// Of NumPy's format 1.0: magic and version, the length of what follows, a dictionary padded with
// spaces. Large enough for any number of rows, so that it can be written last.
constexpr std::size_t header_bytes = 128;

fs::path draft_of(const fs::path& path) {
  return path.parent_path() / ("." + path.filename().string() + ".tmp");
}

}  // namespace

EmbeddingFile::EmbeddingFile(fs::path file, std::int64_t width)
    : file_(std::move(file)), names_(file_), width_(width) {
  if (file_.extension() != ".npy") {
    throw ConfigError("--output " + file_.string() +
                      ": embeddings are written in NumPy's format; the name must end in .npy");
  }
  names_.replace_extension(".txt");
  file_draft_ = draft_of(file_);
  names_draft_ = draft_of(names_);
  file_stream_.open(file_draft_, std::ios::binary | std::ios::trunc);
  check(file_stream_, file_);
  names_stream_.open(names_draft_, std::ios::binary | std::ios::trunc);
  check(names_stream_, names_);
  write_header();
}

EmbeddingFile::~EmbeddingFile() {
  file_stream_.close();
  names_stream_.close();
  std::error_code ignored;
  fs::remove(file_draft_, ignored);
  fs::remove(names_draft_, ignored);
}

void EmbeddingFile::check(const std::ofstream& stream, const fs::path& path) const {
  if (stream) return;
  throw DataError(path.string() + ": cannot be written: " + std::strerror(errno) +
                  "; nothing was left behind");
}

void EmbeddingFile::write_header() {
  std::string header("\x93NUMPY\x01\x00", 8);
  const auto length = static_cast<std::uint16_t>(header_bytes - 10);
  header += static_cast<char>(length & 0xff);
  header += static_cast<char>(length >> 8);
  header += "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows_) + ", " +
            std::to_string(width_) + "), }";
  header.resize(header_bytes - 1, ' ');
  header += '\n';
  file_stream_.seekp(0);
  file_stream_.write(header.data(), static_cast<std::streamsize>(header.size()));
  check(file_stream_, file_);
}

void EmbeddingFile::add(const std::string& name, std::span<const float> row) {
  file_stream_.write(reinterpret_cast<const char*>(row.data()),
                     static_cast<std::streamsize>(row.size_bytes()));
  check(file_stream_, file_);
  std::string line = name;
  std::replace(line.begin(), line.end(), '\n', ' ');
  names_stream_ << line << '\n';
  check(names_stream_, names_);
  ++rows_;
}

void EmbeddingFile::commit() {
  write_header();
  file_stream_.close();
  check(file_stream_, file_);
  names_stream_.close();
  check(names_stream_, names_);
  fs::rename(names_draft_, names_);
  fs::rename(file_draft_, file_);
}

}  // namespace ftrain::launch
