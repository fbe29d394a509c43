// A rank that is a process: how it joins the others, and how it ends when one of them fails.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <iostream>
#include <optional>
#include <thread>

#include "core/health/monitor.h"
#include "core/train/assembly.h"
#include "ftrain/base/error.h"
#include "ftrain/base/log.h"
#include "launch/ranks/communicator_choice.h"
#include "launch/ranks/rank_report.h"
#include "launch/ranks/ranks.h"
#include "launch/ranks/signals.h"

namespace ftrain::launch {
namespace {

using std::chrono::milliseconds;

// Ranks that hear of a failure write down what they have before the first of them ends: launchers
// take that for the end of all.
constexpr milliseconds before_end{500};
// The code that a launcher sees first is to be that of the rank which failed.
constexpr milliseconds before_end_by_hearsay{1500};

// A rank whose launcher is gone would train on with nobody to stop it.
void end_with_launcher() {
  std::thread([launcher = ::getppid()] {
    while (::getppid() == launcher) std::this_thread::sleep_for(milliseconds(300));
    ::_exit(static_cast<int>(ExitCode::device));
  }).detach();
}

// One rank's way from its first word to its last.
class RankProcess {
 public:
  RankProcess(const RankEnvironment& environment, const RankWork& work)
      : environment_(environment),
        work_(work),
        place_(environment.place),
        name_("rank " + std::to_string(place_.rank) + " on " + place_.host) {
    if (place_.rank > 0) {
      log::quiet(true);
      log::speak_as(name_);
    }
    // mpirun sends SIGTERM where a job is over, not where it is to stop.
    const bool mpirun = environment.launcher == "mpirun";
    watch_signals(environment.supervised        ? Listener::supervised
                  : place_.rank == 0 && !mpirun ? Listener::run
                                                : Listener::quiet_rank);
    if (mpirun) end_with_launcher();
  }

  int run() {
    try {
      join();
      agree();
      train();
    } catch (const PeerError&) {
      fail(std::current_exception(), true);
    } catch (...) {
      fail(std::current_exception(), false);
    }
    return end();
  }

 private:
  // Finds the other ranks.
  void join() {
    job_.emplace(work_.load());
    registry_ = registry_for(*job_);
    JobSettings settings;
    job_->root().read(settings, job_->root().keys());
    LaunchSettings launch;
    job_->root().table("launch").read(launch);
    place_.job = settings.name + "/" + place_.job;
    if (place_.size > 1) {
      auto inner = make_communicator(launch);
      inner->connect(place_);
      communicator_ = std::make_unique<WatchedCommunicator>(
          std::move(inner), WatchOptions{.timeout = launch.timeout});
    }
    if (environment_.supervised && place_.rank == 0) {
      send({.what = RankReport::What::joined, .rank = 0, .who = name_});
    }
  }

  std::unique_ptr<Communicator> make_communicator(const LaunchSettings& launch) {
    const RankCommunicators names =
        choose_for_rank(launch, environment_, device_name(*job_, *registry_),
                        [this](const std::string& name) { return has_plugin(*registry_, name); });
    auto host = registry_->create<Communicator>(names.host, Table::empty("launch"));
    if (names.device.empty()) return host;
    auto both = registry_->create<Communicator>(names.device, Table::empty("launch"));
    if (both->needs_carrier()) both->carry_by(std::move(host));
    return both;
  }

  // All ranks can read the job, or one of them says why not.
  void agree() {
    std::string mine;
    std::exception_ptr error;
    std::optional<Assembly> assembly;
    try {
      assembly.emplace(*job_, *registry_);
      work_.check(*assembly);
    } catch (...) {
      error = std::current_exception();
      mine = complaint_of(error).message;
      mine = mine.empty() ? "?" : mine;
    }
    if (communicator_ == nullptr) {
      if (error) std::rethrow_exception(error);
      return;
    }
    const auto all = gather_texts(*communicator_, mine);
    const auto speaker =
        std::find_if(all.begin(), all.end(), [](const std::string& text) { return !text.empty(); });
    if (speaker == all.end()) return;
    common_ =
        std::all_of(all.begin(), all.end(), [&](const auto& text) { return text == *speaker; });
    if (speaker - all.begin() != place_.rank) throw PeerError(*speaker);
    std::rethrow_exception(error);
  }

  void train() {
    TrainerOptions options = work_.options;
    options.communicator = communicator_.get();
    options.interrupted = &interrupted();
    trainer_ = std::make_unique<Trainer>(*job_, *registry_, options);
    trainer_->run();
  }

  int end() {
    const int code = code_of(*trainer_);
    trainer_.reset();
    if (code != 0 && environment_.supervised && place_.rank == 0) {
      send({.what = RankReport::What::interrupted, .rank = 0, .who = name_});
    }
    communicator_.reset();
    if (environment_.supervised && place_.rank == 0) {
      send({.what = RankReport::What::ended, .rank = 0, .who = name_});
    }
    // The launcher knows the signal; mpirun would take another code for a failure.
    return environment_.supervised ? 0 : code;
  }

  [[noreturn]] void fail(const std::exception_ptr& error, bool hearsay) {
    const Complaint complaint = complaint_of(error);
    if (communicator_ && !hearsay) {
      try {
        communicator_->abort(complaint.message);
      } catch (const std::exception&) {
        // The others find out by themselves.
      }
    }
    // Before they have met, ranks may all have the same to say; the first says it.
    const bool met = communicator_ != nullptr || place_.size == 1;
    if (!met && place_.rank > 0) std::this_thread::sleep_for(milliseconds(1000));
    if (environment_.supervised) {
      send({RankReport::What::failure, place_.rank, common_ ? "" : name_, complaint, hearsay});
    } else if (!hearsay) {
      const bool named = common_ || place_.size == 1 || complaint.kind == "CommunicationError";
      print_error(complaint, named ? "" : name_);
    }
    std::cout.flush();
    if (communicator_) {
      std::this_thread::sleep_for(hearsay && !environment_.supervised ? before_end_by_hearsay
                                                                      : before_end);
    }
    ::_exit(complaint.code);
  }

  const RankEnvironment& environment_;
  const RankWork& work_;
  RankPlace place_;
  const std::string name_;
  bool common_ = false;  // what failed is no matter of this rank alone

  // In the order in which they need each other.
  std::optional<Job> job_;
  std::unique_ptr<Registry> registry_;
  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace

int run_as_rank(const RankEnvironment& environment, const RankWork& work) {
  return RankProcess(environment, work).run();
}

}  // namespace ftrain::launch
