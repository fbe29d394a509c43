// Embeddings as NumPy reads them, and beside them the images' names, a line each.
//
// Both are written under other names and take their places in commit(): nobody sees half a file.
// Ownership: destroyed before commit(), it leaves nothing. Failure: DataError naming the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>

namespace ftrain::launch {

class EmbeddingFile {
 public:
  // FILE.npy, f32 [rows, width], and FILE.txt.
  EmbeddingFile(std::filesystem::path file, std::int64_t width);
  ~EmbeddingFile();
  EmbeddingFile(const EmbeddingFile&) = delete;
  EmbeddingFile& operator=(const EmbeddingFile&) = delete;

  void add(const std::string& name, std::span<const float> row);
  void commit();

  const std::filesystem::path& file() const { return file_; }
  const std::filesystem::path& names() const { return names_; }
  std::int64_t rows() const { return rows_; }

 private:
  void write_header();
  void check(const std::ofstream& stream, const std::filesystem::path& path) const;

  std::filesystem::path file_, names_, file_draft_, names_draft_;
  std::ofstream file_stream_, names_stream_;
  std::int64_t width_, rows_ = 0;
};

}  // namespace ftrain::launch
