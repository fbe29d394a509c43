// MXNet RecordIO: the records of a .rec file and the image records within them.
//
// A record is `u32 magic`, `u32 flag << 29 | length`, its payload and zero bytes to a multiple of
// 4; all little-endian. Where a payload holds the magic itself (at a multiple of 4), the writer
// cuts it there: parts with flags 1, 2, 3 instead of one with flag 0, to be joined with the magic
// between them. An image record's payload is `u32 flag, f32 label, u64 id, u64 id2`, then `flag`
// f32 labels, then the encoded image. Metadata records are those without an image.
//
// Threads: reading is free from any thread. Failure: DataError with record number and offset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ftrain/base/mapped_file.h"

namespace recordio {

struct Record {
  std::span<const std::uint8_t> payload;  // in the file, or in the scratch memory when joined
  std::int64_t next;                      // the offset behind the record
};

struct ImageRecord {
  float label;
  std::span<const std::uint8_t> image;
};

class RecordFile {
 public:
  explicit RecordFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(file_.bytes().size()); }
  // Tells the system how the file is about to be read.
  void expect_sequential() const;
  void expect_random() const;

  // The record at `offset`; `number` names it in errors. `scratch` takes a payload that must be
  // joined. With `whole`, the pages of the payload are asked for at once.
  Record read(std::int64_t offset, std::int64_t number, std::vector<std::uint8_t>& scratch,
              bool whole = false) const;
  // The image record in a payload; nothing for a metadata record.
  std::optional<ImageRecord> image_record(const Record& record, std::int64_t number) const;

  // "train.rec record 17", as errors name it.
  std::string describe(std::int64_t number) const;

 private:
  std::filesystem::path path_;
  ftrain::MappedFile file_;
};

// One line of an .idx file.
struct IndexEntry {
  std::int64_t key, offset;
};
std::vector<IndexEntry> read_index(const std::filesystem::path& path);

}  // namespace recordio
