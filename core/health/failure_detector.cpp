#include "core/health/failure_detector.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

// After a collective failed somewhere, so long is waited for the cause: a rank whose connections
// broke speaks before it is known that the rank at their other end died.
constexpr double kSettleSeconds = 1;
constexpr auto kGoodbyeTime = std::chrono::seconds(1);

}  // namespace

Watcher::Watcher(std::unique_ptr<Communicator> inner, const WatchOptions& options)
    : inner_(std::move(inner)),
      options_(options),
      rank_(inner_->rank()),
      board_(rank_),
      interval_(options.timeout > 0 ? std::min(1.0, options.timeout / 4) : 1.0),
      meeting_(inner_->size() > 1 ? meet(*inner_) : Meeting{}),
      left_(meeting_.links.size()),
      judge_(first() ? meeting_.names : std::vector{name(0), name(rank_)}, options.timeout) {
  if (inner_->size() == 1) return;
  if (first()) left_[0] = true;
  // Signals are for the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Watcher::~Watcher() {
  close(false);
}

void Watcher::abort(const std::string& reason) {
  if (!thread_.joinable() || board_.abort(reason)) inner_->abort(reason);
}

void Watcher::close(bool failing) {
  if (!thread_.joinable()) return;
  board_.close(failing);
  thread_.join();
}

void Watcher::run() {
  last_tick_ = std::chrono::steady_clock::now();
  for (bool closing = false; !closing;) {
    wait();
    tick();
    for (std::size_t i = 0; i < meeting_.links.size(); ++i) listen(i);
    const WatchBoard::Requests asked = board_.take();
    const RankStatus status = board_.status();
    closing = asked.close;
    if (asked.trouble) report(FrameKind::trouble, *asked.trouble);
    if (asked.failure) {
      report(FrameKind::failure, *asked.failure);
      board_.sent();
    }
    judge_.hear(first() ? 0 : 1, status, now_);
    const bool due = now_ >= next_beat_;
    if (due) beat(status);
    if (!decided_) decide_by_time(due);
    if (!closing) end_what_does_not_come_back();
  }
  say_goodbye();
  board_.ended();
}

void Watcher::wait() {
  std::vector<pollfd> waits{{board_.wake_socket(), POLLIN, 0}};
  for (const Link& link : meeting_.links) {
    if (link.open()) waits.push_back({link.socket(), link.events(), 0});
  }
  const double seconds = settling_ ? kSettleSeconds / 4 : interval_;
  poll(waits.data(), waits.size(), static_cast<int>(seconds * 1000) + 1);
  std::uint64_t count = 0;
  static_cast<void>(!read(board_.wake_socket(), &count, sizeof count));
}

// A clock that stands while this process or the whole machine is stopped: what others did not do
// in that time is not held against them.
void Watcher::tick() {
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - last_tick_).count();
  last_tick_ = now;
  now_ += seconds > 2 * interval_ ? interval_ : seconds;
}

void Watcher::listen(std::size_t index) {
  if (left_[index]) return;
  Link& link = meeting_.links[index];
  const int rank = first() ? static_cast<int>(index) : 0;
  link.flush();
  link.receive();
  while (auto frame = link.take()) hear(rank, index, *frame);
  if (link.open() || left_[index]) return;
  left_[index] = true;
  if (decided_) return;
  decide({judge_.died(rank, link.lost(), now_), -1, first() ? 0 : speaker_without_first()});
}

void Watcher::hear(int rank, std::size_t index, const Frame& frame) {
  Body body(frame.body);
  switch (frame.kind) {
    case FrameKind::beat: {
      RankStatus status;
      status.finished = body.number();
      status.notes = body.number();
      status.waiting = body.number() != 0;
      status.operation = body.word();
      status.last = body.word();
      status.work = body.word();
      judge_.hear(rank, std::move(status), now_);
      break;
    }
    case FrameKind::trouble:
      suspect(rank, frame.body);
      break;
    case FrameKind::failure:
      if (!decided_) decide({name(rank) + " failed: " + frame.body, rank, rank});
      break;
    case FrameKind::finding:
      if (!decided_) {
        Finding finding;
        finding.culprit = static_cast<int>(body.number());
        finding.speaker = static_cast<int>(body.number());
        finding.text = body.word();
        decide(finding);
      }
      break;
    case FrameKind::goodbye:
      left_[index] = true;
      judge_.leave(rank);
      meeting_.links[index].close();
      break;
    default:
      break;
  }
}

// What happened here goes to rank 0, or is judged when this is rank 0.
void Watcher::report(FrameKind kind, const std::string& text) {
  if (decided_) return;
  if (!first()) return meeting_.links[0].send(kind, text);
  if (kind == FrameKind::trouble) return suspect(0, text);
  decide({name(0) + " failed: " + text, 0, 0});
}

void Watcher::suspect(int rank, const std::string& text) {
  if (decided_ || settling_) return;
  settling_ = Finding{name(rank) + ": " + text, rank, rank};
  settled_at_ = now_ + kSettleSeconds;
}

void Watcher::beat(const RankStatus& status) {
  next_beat_ = now_ + interval_;
  Body body;
  body.put(status.finished).put(status.notes).put(std::int64_t{status.waiting});
  body.put(status.operation).put(status.last).put(status.work);
  for (Link& link : meeting_.links) {
    // Who does not read is stopped: more of the same would not help it.
    if (!link.unsent()) link.send(FrameKind::beat, body.text());
  }
}

// `all`: what takes its time is looked at once a beat.
void Watcher::decide_by_time(bool all) {
  if (settling_ && now_ >= settled_at_) return decide(*settling_);
  if (!all) return;
  // The others hear of rank 0 alone; once it has left, nobody but themselves sees that they wait.
  const auto text = first() || left_[0] ? judge_.overdue(now_) : judge_.silent(now_);
  if (text) decide({*text, -1, first() ? 0 : speaker_without_first()});
}

// The job is over: every rank's collectives end.
void Watcher::decide(Finding finding) {
  decided_ = true;
  decided_at_ = now_;
  settling_.reset();
  if (first()) {
    Body body;
    body.put(std::int64_t{finding.culprit}).put(std::int64_t{finding.speaker});
    body.put(finding.text);
    for (Link& link : meeting_.links) link.send(FrameKind::finding, body.text());
  }
  if (!board_.publish(finding)) return;  // abort() does the rest
  try {
    inner_->abort(finding.text);
  } catch (const Error&) {
    // Whoever waits there is ended after the grace.
  }
}

// One that is not on the machine of rank 0, which may be gone as a whole.
int Watcher::speaker_without_first() const {
  const auto& hosts = meeting_.hosts;
  const auto other = std::find_if(hosts.begin() + 1, hosts.end(),
                                  [&](const std::string& host) { return host != hosts[0]; });
  return other == hosts.end() ? 1 : static_cast<int>(other - hosts.begin());
}

void Watcher::end_what_does_not_come_back() {
  const auto known = board_.known();
  if (!known) return;
  if (!decided_) {  // this rank's own failure, of which rank 0 has said nothing yet
    decided_ = true;
    decided_at_ = now_;
  }
  // Who knows it may have things to put away.
  const double limit = known->told ? 3 * options_.grace : options_.grace;
  if (now_ - decided_at_ <= limit) return;
  if (known->finding.speaker == rank_) {
    std::string line = first() ? "" : name(rank_) + ": ";
    line += "error: CommunicationError: " + known->finding.text;
    if (known->told) line += " (and this rank did not come to its end after that)";
    line += "\n";
    // The log may be what hangs.
    static_cast<void>(!write(STDERR_FILENO, line.data(), line.size()));
  }
  _exit(static_cast<int>(ExitCode::device));
}

// Stays until the others have read it: to close at once could take it from them.
void Watcher::say_goodbye() {
  beat(board_.status());
  for (Link& link : meeting_.links) link.send(FrameKind::goodbye, {});
  const auto end = std::chrono::steady_clock::now() + kGoodbyeTime;
  while (std::chrono::steady_clock::now() < end) {
    std::vector<pollfd> waits;
    for (Link& link : meeting_.links) {
      link.finish();
      link.receive();
      if (link.open()) waits.push_back({link.socket(), link.events(), 0});
    }
    if (waits.empty()) return;
    poll(waits.data(), waits.size(), 100);
  }
}

}  // namespace ftrain
