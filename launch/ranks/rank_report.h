// What a rank tells the `ftrain run` that started it: frames among the bytes of its standard error.
//
// The launcher takes them out of the stream and says each thing once. Frames are lost where nobody
// looks for them, so a rank sends them only when its environment says that it is supervised.
// Threads: any; a frame is one write.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "launch/complaint.h"

namespace ftrain::launch {

constexpr char frame_begin = '\x02', frame_end = '\x03';

struct RankReport {
  enum class What {
    joined,       // all ranks have found each other and listen to signals
    interrupted,  // the run ended by a signal, with a checkpoint
    ended,        // the run is over and the ranks have parted: what comes is mpirun's own end
    failure,
  };
  What what = What::joined;
  int rank = 0;
  std::string who = {};  // "rank 2 on b"
  // Of a failure.
  Complaint complaint = {};
  bool hearsay = false;  // it is another rank's
};

// With its begin and end, and a line break.
std::string to_frame(const RankReport& report);
// What stands between begin and end. Nothing when it is no report.
std::optional<RankReport> from_frame(std::string_view text);

void send(const RankReport& report);

}  // namespace ftrain::launch
