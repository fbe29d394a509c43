// Signals that end a run after the step in hand, with a checkpoint.
//
// Threads: set up once, by the main thread; read from any.
#pragma once

#include <atomic>

namespace ftrain::launch {

enum class Listener {
  run,         // trains by itself: SIGINT, SIGTERM and SIGHUP
  quiet_rank,  // the same, SIGUSR1 and SIGUSR2 too; another rank tells the user of it
  supervised,  // a rank whose launcher hands SIGINT and SIGTERM on as SIGUSR1 and SIGUSR2
  launcher,    // hands them on
};

// The second signal ends the process at once; of a launcher, the third.
void watch_signals(Listener listener);

// The signal that came, SIGINT or SIGTERM whichever way it came; 0: none.
const std::atomic<int>& interrupted();
// How many came.
int signals_caught();

}  // namespace ftrain::launch
