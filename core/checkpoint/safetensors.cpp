#include "core/checkpoint/safetensors.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/base/durable_file.h"
#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"

namespace ftrain {
namespace {

constexpr std::size_t part_bytes = std::size_t{4} << 20;
constexpr std::size_t kHeaderLimit = 100'000'000;  // as the reference implementation has it

constexpr std::array<std::pair<std::string_view, DType>, 7> kNames{{{"F64", DType::f64},
                                                                    {"F32", DType::f32},
                                                                    {"F16", DType::f16},
                                                                    {"BF16", DType::bf16},
                                                                    {"I64", DType::i64},
                                                                    {"I32", DType::i32},
                                                                    {"U8", DType::u8}}};

std::vector<const TensorView*> widest_first(std::span<const TensorView> tensors) {
  std::vector<const TensorView*> order;
  for (const TensorView& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const TensorView* a, const TensorView* b) {
    return size_of(a->dtype) > size_of(b->dtype);
  });
  return order;
}

std::string header_text(const std::filesystem::path& path,
                        const std::vector<const TensorView*>& order,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const TensorView* tensor : order) {
    if (tensor->name.empty() || tensor->name == "__metadata__" || header.contains(tensor->name))
      throw DataError(path.string() + ": a tensor's name must be unique and not '" + tensor->name +
                      "'");
    const std::size_t end = offset + tensor->bytes();
    header[tensor->name] = {{"dtype", safetensors_name(tensor->dtype)},
                            {"shape", tensor->shape.extents()},
                            {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kHeaderLimit)
    throw DataError(path.string() + ": the header would have " + std::to_string(text.size()) +
                    " bytes, the format's limit is " + std::to_string(kHeaderLimit));
  return text;
}

}  // namespace

std::string_view safetensors_name(DType dtype) {
  for (const auto& [name, type] : kNames)
    if (type == dtype) return name;
  return "";
}

DType safetensors_dtype(std::string_view name, const std::string& where) {
  std::vector<std::string> known;
  for (const auto& [known_name, type] : kNames) {
    if (known_name == name) return type;
    known.emplace_back(known_name);
  }
  throw DataError(where + ": element type '" + std::string(name) + "' is not one of " +
                  join(known));
}

FileSeal write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                           const std::map<std::string, std::string>& metadata) {
  const auto order = widest_first(tensors);
  const std::string header = header_text(path, order, metadata);
  DurableFile file(path);
  const std::uint64_t length = header.size();
  std::array<std::uint8_t, 8> prefix;
  for (std::size_t i = 0; i < 8; ++i) prefix[i] = static_cast<std::uint8_t>(length >> (8 * i));
  file.write(prefix.data(), prefix.size());
  file.write(header.data(), header.size());
  for (const TensorView* tensor : order) {
    if (tensor->data || !tensor->part) {
      file.write(tensor->data, tensor->bytes());
      continue;
    }
    for (std::size_t first = 0; first < tensor->bytes(); first += part_bytes) {
      const std::size_t bytes = std::min(part_bytes, tensor->bytes() - first);
      file.write(tensor->part(first, bytes), bytes);
    }
  }
  return file.close();
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  parse();
}

void SafetensorsFile::parse() {
  const std::span<const std::uint8_t> bytes = file_.bytes();
  const std::string where = path_.string();
  const auto check = [&](bool holds, const std::string& rule) {
    if (!holds) throw DataError(where + ": " + rule);
  };
  check(bytes.size() >= 8, "is no safetensors file: it has " + std::to_string(bytes.size()) +
                               " bytes, the length of the header alone takes 8");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t{bytes[i]} << (8 * i);
  check(length <= kHeaderLimit && length <= bytes.size() - 8,
        "is no safetensors file or is cut short: its header should have " + std::to_string(length) +
            " bytes, the file has " + std::to_string(bytes.size()));
  const char* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  const std::span<const std::uint8_t> data = bytes.subspan(8 + length);

  nlohmann::json header;
  try {
    header = nlohmann::json::parse(text, text + length);
  } catch (const nlohmann::json::exception& error) {
    throw DataError(where + ": the header is no valid JSON: " + error.what());
  }
  check(header.is_object(), "the header is no JSON object");

  struct Extent {
    std::uint64_t begin, end;
  };
  std::vector<std::pair<Extent, TensorView>> found;
  for (const auto& [name, entry] : header.items()) {
    const std::string tensor = "tensor '" + name + "'";
    check(entry.is_object(), tensor + " is described by no JSON object");
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.items()) {
        check(value.is_string(), "metadata '" + key + "' is no string");
        metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    const auto is_count = [](const nlohmann::json& n) { return n.is_number_unsigned(); };
    const auto list = [&](const char* key) {
      const auto it = entry.find(key);
      check(it != entry.end() && it->is_array() && std::all_of(it->begin(), it->end(), is_count),
            tensor + " needs '" + key + "', a list of whole numbers");
      return it->get<std::vector<std::uint64_t>>();
    };
    const auto dtype = entry.find("dtype");
    check(dtype != entry.end() && dtype->is_string(), tensor + " needs 'dtype', a string");
    TensorView view;
    view.name = name;
    view.dtype = safetensors_dtype(dtype->get<std::string>(), where + " " + tensor);
    std::uint64_t size = size_of(view.dtype);
    std::vector<std::int64_t> extents;
    for (const std::uint64_t extent : list("shape")) {
      // Also keeps elements() within its type: no extent or product exceeds what a file can hold.
      const std::uint64_t most =
          std::numeric_limits<std::int64_t>::max() / std::max<std::uint64_t>(size, 1);
      check(extent <= most, tensor + " has a shape larger than any file");
      size *= extent;
      extents.push_back(static_cast<std::int64_t>(extent));
    }
    view.shape = Shape(std::move(extents));
    const auto offsets = list("data_offsets");
    check(offsets.size() == 2 && offsets[0] <= offsets[1],
          tensor + " needs 'data_offsets', a begin and an end");
    check(offsets[1] <= data.size(), tensor + " ends at byte " + std::to_string(offsets[1]) +
                                         " of the data, which have " + std::to_string(data.size()) +
                                         ": the file is cut short");
    check(offsets[1] - offsets[0] == size,
          tensor + " has " + std::to_string(offsets[1] - offsets[0]) + " bytes, its shape " +
              view.shape.text() + " needs " + std::to_string(size));
    view.data = data.data() + offsets[0];
    found.push_back({{offsets[0], offsets[1]}, std::move(view)});
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  std::uint64_t end = 0;
  for (auto& [extent, view] : found) {
    check(extent.begin == end, "tensor '" + view.name + "' begins at byte " +
                                   std::to_string(extent.begin) + " of the data, expected " +
                                   std::to_string(end) +
                                   ": tensors follow each other without holes");
    end = extent.end;
    index_[view.name] = tensors_.size();
    tensors_.push_back(std::move(view));
  }
  check(end == data.size(), std::to_string(data.size() - end) + " bytes follow the last tensor");
}

void SafetensorsFile::forget(const void* first, std::size_t bytes) const {
  file_.forget(static_cast<const std::uint8_t*>(first), bytes);
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  if (const TensorView* tensor = find(name)) return *tensor;
  std::vector<std::string> names;
  for (const TensorView& tensor : tensors_) names.push_back(tensor.name);
  throw DataError(path_.string() + ": holds no tensor '" + std::string(name) + "'." +
                  did_you_mean(name, names));
}

FileSeal seal_of(std::span<const std::uint8_t> file) {
  return {file.size(), XXH3_64bits(file.data(), file.size())};
}

FileSeal seal_of(const MappedFile& file) {
  const std::span<const std::uint8_t> bytes = file.bytes();
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(),
                                                                      XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  for (std::size_t first = 0; first < bytes.size(); first += part_bytes) {
    const std::span<const std::uint8_t> part =
        bytes.subspan(first, std::min(part_bytes, bytes.size() - first));
    XXH3_64bits_update(hash.get(), part.data(), part.size());
    file.forget(part.data(), part.size());
  }
  return {bytes.size(), XXH3_64bits_digest(hash.get())};
}

}  // namespace ftrain
