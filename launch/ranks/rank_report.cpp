#include "launch/ranks/rank_report.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace ftrain::launch {
namespace {

constexpr char separator = '\x1f';

// A message may hold any bytes, such as those of a file's name.
std::string harmless(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return c == frame_begin || c == frame_end || c == separator; }, '?');
  return text;
}

}  // namespace

std::string to_frame(const RankReport& report) {
  std::string text(1, frame_begin);
  for (const std::string& field :
       {std::to_string(static_cast<int>(report.what)), std::to_string(report.rank),
        harmless(report.who), harmless(report.complaint.kind),
        std::to_string(report.complaint.code), std::to_string(report.hearsay ? 1 : 0)}) {
    text += field + separator;
  }
  return text + harmless(report.complaint.message) + frame_end + "\n";
}

std::optional<RankReport> from_frame(std::string_view text) {
  std::vector<std::string> fields;
  while (fields.size() < 6) {
    const std::size_t end = text.find(separator);
    if (end == std::string_view::npos) return std::nullopt;
    fields.emplace_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  const int what = std::atoi(fields[0].c_str());
  if (what < 0 || what > static_cast<int>(RankReport::What::failure)) return std::nullopt;
  return RankReport{
      .what = static_cast<RankReport::What>(what),
      .rank = std::atoi(fields[1].c_str()),
      .who = fields[2],
      .complaint = {fields[3], std::string(text), std::atoi(fields[4].c_str())},
      .hearsay = fields[5] == "1",
  };
}

void send(const RankReport& report) {
  const std::string frame = to_frame(report);
  for (std::size_t done = 0; done < frame.size();) {
    const auto wrote = ::write(STDERR_FILENO, frame.data() + done, frame.size() - done);
    if (wrote <= 0) return;  // nobody is there to hear it
    done += static_cast<std::size_t>(wrote);
  }
}

}  // namespace ftrain::launch
