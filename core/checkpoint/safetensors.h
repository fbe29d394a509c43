// Files in the safetensors format: named tensors, row-major, that every framework reads.
//
// Layout: u64 length of the header, the header (JSON, padded with blanks to a multiple of 8), the
// data without holes. We write wider elements first, so that every tensor is aligned to its
// element. Threads: a SafetensorsFile may be read from any thread. Failure: DataError naming the
// file and the tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/durable_file.h"
#include "ftrain/base/dtype.h"
#include "ftrain/base/mapped_file.h"
#include "ftrain/base/shape.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// A tensor in someone else's memory: `data` must outlive the view. A writer also takes views whose
// data are made part by part when their turn comes: `data` is nullptr, and part(first, bytes), the
// bytes [first, first + bytes) of the tensor, in order, stays until the next call.
struct TensorView {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  const void* data = nullptr;
  std::function<const void*(std::size_t first, std::size_t bytes)> part = nullptr;

  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
};

FTRAIN_API FileSeal seal_of(std::span<const std::uint8_t> file);
// Reads the file once, and lets go of its pages behind itself.
FTRAIN_API FileSeal seal_of(const MappedFile& file);

// Writes `tensors` and forces them to the disk. The data are streamed: nothing is copied as a
// whole. On failure the unfinished file is removed.
FTRAIN_API FileSeal write_safetensors(const std::filesystem::path& path,
                                      std::span<const TensorView> tensors,
                                      const std::map<std::string, std::string>& metadata = {});

// A file mapped into memory; the views point into the mapping.
class FTRAIN_API SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  // In the order of the data.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Gives the memory of a part of a tensor back to the system; it is read again when needed.
  void forget(const void* first, std::size_t bytes) const;
  // Null when there is none of that name.
  const TensorView* find(std::string_view name) const;
  // DataError with near names when there is none.
  const TensorView& at(std::string_view name) const;

 private:
  void parse();
  std::filesystem::path path_;
  MappedFile file_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

// "F32" and back; DataError with `where` in front when the name is none that we hold.
FTRAIN_API std::string_view safetensors_name(DType dtype);
FTRAIN_API DType safetensors_dtype(std::string_view name, const std::string& where);

}  // namespace ftrain
