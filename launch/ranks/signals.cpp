#include "launch/ranks/signals.h"

#include <signal.h>
#include <unistd.h>

#include <initializer_list>

namespace ftrain::launch {
namespace {

// What a signal handler can reach: the globals of the program.
std::atomic<int> caught{0}, count{0};
std::atomic<Listener> listens{Listener::run};
static_assert(std::atomic<int>::is_always_lock_free);

constexpr std::initializer_list<int> direct{SIGINT, SIGTERM, SIGHUP};
constexpr std::initializer_list<int> forwarded{SIGUSR1, SIGUSR2};

void set(std::initializer_list<int> numbers, void (*handler)(int)) {
  for (const int number : numbers) {
    struct sigaction action = {}, before = {};
    sigaction(number, nullptr, &before);
    // nohup asks for a run that outlives its terminal.
    if (number == SIGHUP && before.sa_handler == SIG_IGN) continue;
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, nullptr);
  }
}

void on_signal(int number) {
  const bool as_interrupt = number == SIGINT || number == SIGUSR1;
  const Listener listener = listens.load();
  if (count.load() == 0) caught.store(as_interrupt ? SIGINT : SIGTERM);
  count.store(count.load() + 1);
  const bool last = count.load() > (listener == Listener::launcher ? 1 : 0);
  if (last && listener != Listener::supervised) set(direct, SIG_DFL);
  if (last && listener != Listener::launcher) set(forwarded, SIG_DFL);
  if (count.load() > 1 || (listener != Listener::run && listener != Listener::launcher)) return;
  static constexpr char text[] =
      "\ninterrupted: a checkpoint is written after this step; once more to stop at once\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text, sizeof text - 1);
}

}  // namespace

void watch_signals(Listener listener) {
  listens.store(listener);
  if (listener == Listener::supervised) {
    set(forwarded, on_signal);
    // The terminal's keys and a scheduler reach the launcher too, which hands them on. What mpirun
    // sends to the ranks of a job that failed comes before the signal that cannot be caught.
    set({SIGINT, SIGTERM}, SIG_IGN);
  } else {
    set(direct, on_signal);
    if (listener == Listener::quiet_rank) set(forwarded, on_signal);
  }
  // A log whose reader is gone does not end a run.
  ::signal(SIGPIPE, SIG_IGN);
}

const std::atomic<int>& interrupted() {
  return caught;
}

int signals_caught() {
  return count.load();
}

}  // namespace ftrain::launch
