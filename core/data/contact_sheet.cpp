#include "core/data/contact_sheet.h"

#include <algorithm>
#include <cstring>

namespace ftrain {
namespace {

constexpr int gap = 4;                   // pixels between images and around them
constexpr std::uint8_t ground = 238;     // their colour
constexpr std::int64_t neighbours = 64;  // how far from a sample its label is looked for

// Samples with the label of `start`, nearest first, then in order.
SheetRow row_at(const Dataset& dataset, std::int64_t start, std::int64_t columns) {
  Sample sample;
  dataset.read(start, sample);
  SheetRow row{sample.label, {start}};
  const auto full = [&] { return static_cast<std::int64_t>(row.samples.size()) >= columns; };
  const auto look_at = [&](std::int64_t index) {
    if (full() || index < 0 || index >= dataset.size()) return;
    dataset.read(index, sample);
    if (sample.label == row.label) row.samples.push_back(index);
  };
  for (std::int64_t away = 1; away <= neighbours && !full(); ++away) {
    look_at(start + away);
    look_at(start - away);
  }
  std::sort(row.samples.begin(), row.samples.end());
  return row;
}

}  // namespace

std::vector<SheetRow> choose_samples(const Dataset& dataset, std::int64_t count,
                                     std::int64_t columns) {
  std::vector<SheetRow> rows;
  const std::int64_t lines = (count + columns - 1) / columns;
  for (std::int64_t line = 0; line < lines; ++line) {
    const std::int64_t start = dataset.size() * line / lines;
    SheetRow row = row_at(dataset, start, std::min(columns, count - line * columns));
    const bool shown = std::any_of(rows.begin(), rows.end(),
                                   [&](const SheetRow& r) { return r.samples == row.samples; });
    if (!shown) rows.push_back(std::move(row));
  }
  return rows;
}

Image contact_sheet(const std::vector<std::vector<Image>>& rows, int size) {
  std::size_t columns = 0;
  for (const auto& row : rows) columns = std::max(columns, row.size());
  Image sheet;
  sheet.width = gap + static_cast<int>(columns) * (size + gap);
  sheet.height = gap + static_cast<int>(rows.size()) * (size + gap);
  const auto stride = static_cast<std::size_t>(sheet.width) * 3;
  sheet.pixels.assign(stride * static_cast<std::size_t>(sheet.height), ground);
  const auto line_bytes = static_cast<std::size_t>(size) * 3;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      const Image image = resize(rows[r][c], size);
      const std::size_t pitch = static_cast<std::size_t>(size + gap);
      const std::size_t top = gap + r * pitch, left = gap + c * pitch;
      for (std::size_t y = 0; y < static_cast<std::size_t>(size); ++y) {
        std::memcpy(&sheet.pixels[(top + y) * stride + left * 3], &image.pixels[y * line_bytes],
                    line_bytes);
      }
    }
  }
  return sheet;
}

}  // namespace ftrain
