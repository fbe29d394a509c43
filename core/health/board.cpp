#include "core/health/board.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <utility>

namespace ftrain {
namespace {

// A finding comes in this time after a collective failed, or rank 0 is gone as well.
constexpr auto kFindingTime = std::chrono::seconds(5);
constexpr auto kSendingTime = std::chrono::seconds(2);

// "all_reduce of 4.2 MiB"; the bytes are those that a rank ends up with.
std::string operation_text(const char* operation, std::int64_t bytes) {
  if (operation == nullptr) return {};
  if (bytes == 0) return operation;
  const char* units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  std::int64_t tenths = bytes * 10;
  for (; tenths >= 10240 && unit < 4; ++unit) tenths = (tenths + 512) / 1024;
  std::string text = std::to_string(tenths / 10);
  if (unit > 0 && tenths < 1000) text += "." + std::to_string(tenths % 10);
  return std::string(operation) + " of " + text + " " + units[unit];
}

}  // namespace

WatchBoard::WatchBoard(int rank) : rank_(rank), wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

WatchBoard::~WatchBoard() {
  ::close(wake_);
}

void WatchBoard::begin(const char* operation, std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (finding_) raise();
  operation_ = operation;
  bytes_ = bytes;
  waiting_ = true;
}

void WatchBoard::end() {
  const std::lock_guard lock(mutex_);
  waiting_ = false;
  ++finished_;
  last_operation_ = operation_;
  last_bytes_ = bytes_;
}

void WatchBoard::leave() {
  const std::lock_guard lock(mutex_);
  waiting_ = false;
}

void WatchBoard::failed(const CommunicationError& error) {
  std::unique_lock lock(mutex_);
  if (!finding_) {
    if (dynamic_cast<const PeerError*>(&error) == nullptr) trouble_ = error.what();
    wake();
    changed_.wait_for(lock, kFindingTime, [&] { return finding_.has_value() || ended_; });
  }
  waiting_ = false;
  told_ = true;
  if (finding_ && finding_->culprit != rank_) raise();
  throw;
}

bool WatchBoard::abort(const std::string& reason) {
  std::unique_lock lock(mutex_);
  if (finding_) return false;
  finding_ = Finding{reason, rank_, rank_};
  told_ = true;
  failure_ = reason;
  wake();
  changed_.wait_for(lock, kSendingTime, [&] { return sent_ || ended_; });
  return true;
}

void WatchBoard::working_on(const Work& work) {
  const std::lock_guard lock(mutex_);
  work_ = work;
  ++notes_;
}

void WatchBoard::close(bool failing) {
  const std::lock_guard lock(mutex_);
  if (failing && !finding_) failure_ = "it ended with an error";
  close_ = true;
  wake();
}

RankStatus WatchBoard::status() {
  const std::lock_guard lock(mutex_);
  return {finished_,
          notes_,
          waiting_,
          operation_text(operation_, bytes_),
          operation_text(last_operation_, last_bytes_),
          work_.text()};
}

WatchBoard::Requests WatchBoard::take() {
  const std::lock_guard lock(mutex_);
  return {close_, std::exchange(trouble_, {}), std::exchange(failure_, {})};
}

void WatchBoard::sent() {
  const std::lock_guard lock(mutex_);
  sent_ = true;
  changed_.notify_all();
}

bool WatchBoard::publish(const Finding& finding) {
  const std::lock_guard lock(mutex_);
  if (finding_) return false;
  finding_ = finding;
  changed_.notify_all();
  return true;
}

std::optional<WatchBoard::Known> WatchBoard::known() {
  const std::lock_guard lock(mutex_);
  if (!finding_) return {};
  return Known{*finding_, told_};
}

void WatchBoard::ended() {
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

void WatchBoard::wake() {
  const std::uint64_t one = 1;
  // A full counter wakes too.
  static_cast<void>(!write(wake_, &one, sizeof one));
}

void WatchBoard::raise() {
  told_ = true;
  if (finding_->speaker == rank_) throw CommunicationError(finding_->text);
  throw PeerError(finding_->text);
}

}  // namespace ftrain
