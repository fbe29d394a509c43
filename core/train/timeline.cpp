#include "core/train/timeline.h"

#include <nlohmann/json.hpp>
#include <string>

#include "core/base/durable_file.h"

namespace ftrain {

void write_timeline(const std::filesystem::path& folder, int rank,
                    const std::vector<TimelineEvent>& events) {
  using json = nlohmann::ordered_json;
  constexpr double microseconds = 1e6;
  json list = json::array();
  const auto name = [&](const char* kind, int lane, const std::string& text) {
    list.push_back(
        {{"ph", "M"}, {"name", kind}, {"pid", rank}, {"tid", lane}, {"args", {{"name", text}}}});
  };
  name("process_name", 0, "rank " + std::to_string(rank));
  name("thread_name", 0, "kernels");
  name("thread_name", 1, "collectives");
  for (const TimelineEvent& event : events) {
    list.push_back({{"ph", "X"},
                    {"name", event.name.empty() ? event.op : event.name},
                    {"cat", event.op},
                    {"pid", rank},
                    {"tid", event.lane},
                    {"ts", event.begin * microseconds},
                    {"dur", (event.end - event.begin) * microseconds}});
  }
  replace_file(folder / ("timeline-rank-" + std::to_string(rank) + ".json"),
               json{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(list)}}.dump() + "\n");
}

}  // namespace ftrain
