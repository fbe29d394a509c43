#include "datasets/recordio/record_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstring>
#include <utility>

#include "ftrain/base/error.h"

namespace recordio {
namespace {

constexpr std::uint32_t magic = 0xced7230a;
constexpr std::array<std::uint8_t, 4> magic_bytes = {0x0a, 0x23, 0xd7, 0xce};
constexpr std::int64_t head = 8, image_head = 24;

std::uint32_t u32_at(std::span<const std::uint8_t> bytes, std::int64_t offset) {
  std::uint32_t value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

float f32_at(std::span<const std::uint8_t> bytes, std::int64_t offset) {
  float value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

}  // namespace

RecordFile::RecordFile(std::filesystem::path path) : path_(std::move(path)), file_(path_) {}

void RecordFile::expect_sequential() const {
  const auto bytes = file_.bytes();
  if (!bytes.empty())
    ::madvise(const_cast<std::uint8_t*>(bytes.data()), bytes.size(), MADV_SEQUENTIAL);
}

void RecordFile::expect_random() const {
  const auto bytes = file_.bytes();
  if (!bytes.empty()) ::madvise(const_cast<std::uint8_t*>(bytes.data()), bytes.size(), MADV_RANDOM);
}

std::string RecordFile::describe(std::int64_t number) const {
  return path_.string() + " record " + std::to_string(number);
}

Record RecordFile::read(std::int64_t offset, std::int64_t number,
                        std::vector<std::uint8_t>& scratch, bool whole) const {
  const auto file = file_.bytes();
  const auto fail = [&](std::int64_t at, const std::string& what) {
    throw ftrain::DataError(describe(number) + " at offset " + std::to_string(at) + ": " + what);
  };
  const auto need = [&](std::int64_t at, std::int64_t count) {
    if (count <= bytes() - at) return;
    fail(at, "the file ends at offset " + std::to_string(bytes()) + ", within the record, which " +
                 "goes on to offset " + std::to_string(at + count) +
                 ". The file is cut short: copy it again");
  };
  bool joining = false;
  while (true) {
    need(offset, head);
    if (u32_at(file, offset) != magic)
      fail(offset,
           "a record begins with the bytes 0a 23 d7 ce, here is something else. The file is "
           "damaged, "
           "is no RecordIO file, or its .idx file belongs to another one");
    const std::uint32_t word = u32_at(file, offset + 4);
    const std::uint32_t flag = word >> 29;
    const std::int64_t length = word & 0x1FFFFFFF;
    if (flag > 3 || (flag >= 2) != joining)
      fail(offset, "the part flag " + std::to_string(flag) + " is out of place: " +
                       (joining ? "the parts of a split record go on with 2 or 3"
                                : "a record begins with 0 or 1") +
                       ". The file is damaged");
    need(offset + head, length);
    const auto part =
        file.subspan(static_cast<std::size_t>(offset + head), static_cast<std::size_t>(length));
    // The last record's padding may be missing.
    offset = std::min(offset + head + (length + 3) / 4 * 4, bytes());
    if (flag == 0) {
      if (whole) {
        const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
        const auto begin = reinterpret_cast<std::uintptr_t>(part.data()) / page * page;
        const auto end = reinterpret_cast<std::uintptr_t>(part.data()) + part.size();
        if (end - begin > page)
          ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
      }
      return {part, offset};
    }
    if (flag == 1) scratch.clear();
    if (flag >= 2) scratch.insert(scratch.end(), magic_bytes.begin(), magic_bytes.end());
    scratch.insert(scratch.end(), part.begin(), part.end());
    if (flag == 3) return {scratch, offset};
    joining = true;
  }
}

std::optional<ImageRecord> RecordFile::image_record(const Record& record,
                                                    std::int64_t number) const {
  const auto payload = record.payload;
  const auto length = static_cast<std::int64_t>(payload.size());
  const std::int64_t labels = length < image_head ? 0 : u32_at(payload, 0);
  if (length < image_head + labels * 4)
    throw ftrain::DataError(describe(number) + ": a payload of " + std::to_string(length) +
                            " bytes does not hold the header of an image record with " +
                            std::to_string(labels) + " labels (" +
                            std::to_string(image_head + labels * 4) + " bytes)");
  const auto image = payload.subspan(static_cast<std::size_t>(image_head + labels * 4));
  if (image.empty()) return {};
  return ImageRecord{f32_at(payload, labels > 0 ? image_head : 4), image};
}

std::vector<IndexEntry> read_index(const std::filesystem::path& path) {
  const ftrain::MappedFile file(path);
  const char* at = reinterpret_cast<const char*>(file.bytes().data());
  const char* const end = at + file.bytes().size();
  std::vector<IndexEntry> entries;
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  for (std::int64_t line = 1; at < end; ++line) {
    const char* stop =
        static_cast<const char*>(std::memchr(at, '\n', static_cast<std::size_t>(end - at)));
    if (!stop) stop = end;
    const auto skip_blanks = [&] {
      while (at < stop && blank(*at)) ++at;
    };
    const auto number = [&](std::int64_t& value) {
      skip_blanks();
      const auto result = std::from_chars(at, stop, value);
      at = result.ptr;
      return result.ec == std::errc() && value >= 0 && (at == stop || blank(*at));
    };
    skip_blanks();
    if (at < stop) {
      IndexEntry entry{};
      const bool good = number(entry.key) && number(entry.offset);
      skip_blanks();
      if (!good || at != stop)
        throw ftrain::DataError(path.string() + ":" + std::to_string(line) +
                                ": a line of an .idx file is a key and an offset, separated by a "
                                "tab. Remove the damaged .idx file: it is not needed");
      entries.push_back(entry);
    }
    at = stop == end ? end : stop + 1;
  }
  return entries;
}

}  // namespace recordio
