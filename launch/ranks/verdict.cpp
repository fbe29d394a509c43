// From what ranks and mpirun said to the one reason that the user is told.
#include <algorithm>
#include <csignal>
#include <cstring>

#include "ftrain/base/error.h"
#include "launch/ranks/supervise.h"

namespace ftrain::launch {
namespace {

constexpr int communication = static_cast<int>(ExitCode::device);

// "; it was in ...; the last operation ..." of what rank 0 found out about a rank that died.
std::string circumstances(const Ending& ending, int rank) {
  const std::string name = "rank " + std::to_string(rank) + " on ";
  for (const RankReport& report : ending.reports) {
    const std::string& text = report.complaint.message;
    const std::size_t at = text.find("; it was ");
    const bool known = text.find("finished no collective yet") == std::string::npos;
    if (text.starts_with(name) && at != std::string::npos && known) return text.substr(at);
  }
  return {};
}

Verdict lost(const std::string& message, bool restartable = true) {
  return {{"CommunicationError", message, communication}, "", restartable};
}

Verdict of_report(const RankReport& report, const Ending& ending) {
  const Complaint& complaint = report.complaint;
  // What all ranks say alike is no matter of one of them, and a CommunicationError names ranks.
  int alike = 0;
  for (const RankReport& other : ending.reports) {
    alike += other.what == RankReport::What::failure && !other.hearsay &&
             other.complaint.message == complaint.message;
  }
  const bool named = complaint.kind == "CommunicationError" || alike > 1;
  return {complaint, named ? "" : report.who, complaint.code == communication};
}

Verdict of_notice(const Notice& notice, const Ending& ending) {
  const std::string rank =
      "rank " + std::to_string(notice.rank) + (notice.host.empty() ? "" : " on " + notice.host);
  switch (notice.what) {
    case Notice::What::killed: {
      const char* name = ::strsignal(notice.number);
      std::string text = rank + " was killed by signal " + std::to_string(notice.number) + " (" +
                         (name ? name : "unknown") + ")";
      if (notice.number == SIGKILL) text += ": by somebody, or by the system for want of memory";
      return lost(text + circumstances(ending, notice.rank));
    }
    case Notice::What::exited:
      return lost(rank + " ended with code " + std::to_string(notice.number) +
                      " and said no reason" + circumstances(ending, notice.rank),
                  notice.number == communication || notice.number > 128);
    case Notice::What::left:
      return lost(rank + " ended before the others" + circumstances(ending, notice.rank));
    case Notice::What::lost_host:
      return lost("the machine " + notice.host +
                  " no longer answers: it, or the network to it, is gone");
    case Notice::What::no_daemon:
      break;
  }
  // mpirun has the same words for a helper that did not start and for one that ended too early.
  const bool joined =
      std::any_of(ending.reports.begin(), ending.reports.end(),
                  [](const RankReport& report) { return report.what == RankReport::What::joined; });
  if (joined) return lost("a machine of the job is lost: what mpirun has there has ended");
  return lost(
      "mpirun could not start its helper (orted) on every host: Open MPI must be installed and in "
      "PATH there, and the hosts must reach this machine by TCP");
}

}  // namespace

Verdict verdict_of(const Ending& ending) {
  const RankReport* own = nullptr;     // the first that failed by itself
  const RankReport* broken = nullptr;  // the first whose communication did
  const RankReport* hearsay = nullptr;
  for (const RankReport& report : ending.reports) {
    if (report.what != RankReport::What::failure) continue;
    const RankReport*& place = report.hearsay                                  ? hearsay
                               : report.complaint.kind == "CommunicationError" ? broken
                                                                               : own;
    if (place == nullptr) place = &report;
  }
  const Notice* first = nullptr;  // what says most, in the order of Notice::What
  for (const Notice& notice : ending.notices) {
    if (first == nullptr || notice.what < first->what) first = &notice;
  }
  if (own != nullptr) return of_report(*own, ending);
  if (ending.late) {
    return lost(
        "the ranks have not found each other in time: can the hosts reach each other by TCP?");
  }
  if (first != nullptr && first->what == Notice::What::killed) return of_notice(*first, ending);
  if (broken != nullptr) return of_report(*broken, ending);
  // A rank that only heard of a failure ends with a code too.
  if (first != nullptr && (hearsay == nullptr || first->what != Notice::What::exited)) {
    return of_notice(*first, ending);
  }
  if (hearsay != nullptr) return of_report(*hearsay, ending);
  if (ending.code > 128) {
    return lost("mpirun was killed by signal " + std::to_string(ending.code - 128));
  }
  return lost(
      "mpirun ended with code " + std::to_string(ending.code) + "; what it says stands above",
      ending.code == communication);
}

}  // namespace ftrain::launch
