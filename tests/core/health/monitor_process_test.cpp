// Watched ranks that are processes: what a killed, a stopped and a hung one look like to the
// others.
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/health/monitor.h"
#include "ftrain/base/error.h"
#include "ftrain/config/table.h"
#include "ftrain/plugin/registry.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

void sum(Communicator& c) {
  std::vector<float> values(1024, 1.0f);
  c.all_reduce(values.data(), 1024, DType::f32, Reduction::sum);
}

// Ranks that are processes and meet over TCP at a port of this machine.
class Processes : public testing::Test {
 protected:
  struct Child {
    pid_t process = -1;
    int pipe = -1;
  };

  // Each runs `body`, which says by its second argument when it is ready, and then says what
  // became of it.
  void start(int size, const WatchOptions& options,
             const std::function<void(Communicator&, const std::function<void()>&)>& body) {
    const int port = reserve_port();
    for (int rank = 0; rank < size; ++rank) {
      int ends[2] = {-1, -1};
      ASSERT_EQ(pipe(ends), 0);
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        ::close(ends[0]);
        run(rank, size, port, ends[1], options, body);
        _exit(0);
      }
      ::close(ends[1]);
      children_.push_back({child, ends[0]});
    }
  }

  void TearDown() override {
    for (const Child& child : children_) {
      if (child.process > 0) {
        kill(child.process, SIGKILL);
        waitpid(child.process, nullptr, 0);
      }
      ::close(child.pipe);
    }
    ::close(reserved_);
  }

  void signal(int rank, int number) {
    kill(children_[static_cast<std::size_t>(rank)].process, number);
  }
  // The next line that the rank says; empty when it has ended.
  std::string line(int rank) {
    pollfd wait{children_[static_cast<std::size_t>(rank)].pipe, POLLIN, 0};
    std::string text;
    for (char c = 0; poll(&wait, 1, 60000) == 1 && read(wait.fd, &c, 1) == 1;) {
      if (c == '\n') return text;
      text += c;
    }
    return text;
  }
  int exit_code(int rank) {
    int status = 0;
    Child& child = children_[static_cast<std::size_t>(rank)];
    waitpid(child.process, &status, 0);
    child.process = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void forget() {
    TearDown();
    children_.clear();
  }
  std::string process(int rank) {
    return "(process " + std::to_string(children_[static_cast<std::size_t>(rank)].process) + ")";
  }

 private:
  static void say(int pipe, std::string text) {
    text += "\n";
    EXPECT_EQ(write(pipe, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  static void run(int rank, int size, int port, int pipe, const WatchOptions& options,
                  const std::function<void(Communicator&, const std::function<void()>&)>& body) {
    dup2(pipe, STDERR_FILENO);
    try {
      Registry registry({FTRAIN_PLUGINS});
      auto tcp = registry.create<Communicator>("tcp", Table::empty("launch"));
      RankPlace place;
      place.rank = rank;
      place.size = size;
      place.host = "test";
      place.job = "watch";
      place.address = "127.0.0.1";
      place.port = port;
      tcp->connect(place);
      WatchedCommunicator watched(std::move(tcp), options);
      body(watched, [&] { say(pipe, "ready"); });
      say(pipe, "done");
    } catch (const PeerError& error) {
      say(pipe, std::string("peer: ") + error.what());
    } catch (const std::exception& error) {
      say(pipe, std::string("error: ") + error.what());
    }
  }

  // A port that nobody else is given: bound here, but not listened at.
  int reserve_port() {
    reserved_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int yes = 1;
    setsockopt(reserved_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(reserved_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(reserved_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    return ntohs(address.sin_port);
  }

  int reserved_ = -1;
  std::vector<Child> children_;
};

[[noreturn]] void sleep_for_ever() {
  while (true) pause();
}

TEST_F(Processes, AKilledOneIsNamedByRankZero) {
  start(3, {}, [](Communicator& c, const auto& ready) {
    sum(c);
    ready();
    if (c.rank() == 1) sleep_for_ever();
    while (true) sum(c);
  });
  for (int r = 0; r < 3; ++r) EXPECT_EQ(line(r), "ready");
  const std::string name = "rank 1 on test " + process(1) + " ended without a word";
  signal(1, SIGKILL);
  EXPECT_THAT(line(0), StartsWith("error: " + name));
  EXPECT_THAT(line(2), StartsWith("peer: " + name));
}

TEST_F(Processes, WhenRankZeroIsKilledAnotherSaysSo) {
  start(3, {}, [](Communicator& c, const auto& ready) {
    sum(c);
    ready();
    if (c.rank() == 0) sleep_for_ever();
    while (true) sum(c);
  });
  for (int r = 0; r < 3; ++r) EXPECT_EQ(line(r), "ready");
  const std::string name = "rank 0 on test " + process(0) + " ended without a word";
  signal(0, SIGKILL);
  EXPECT_THAT(line(1), StartsWith("error: " + name));
  EXPECT_THAT(line(2), StartsWith("peer: " + name));
}

TEST_F(Processes, AStoppedOneIsNamed) {
  start(3, {.timeout = 1, .grace = 60}, [](Communicator& c, const auto& ready) {
    sum(c);
    ready();
    while (true) sum(c);
  });
  for (int r = 0; r < 3; ++r) EXPECT_EQ(line(r), "ready");
  const std::string name = "rank 2 on test " + process(2) + " has not been heard of for ";
  signal(2, SIGSTOP);
  EXPECT_THAT(line(0), StartsWith("error: " + name));
  EXPECT_THAT(line(1), StartsWith("peer: " + name));
}

TEST_F(Processes, StoppingAllOfThemIsNoFailure) {
  start(2, {.timeout = 1.5}, [](Communicator& c, const auto& ready) {
    sum(c);
    ready();
    // Goes on for a second of steps after the pause.
    for (int i = 0; i < 100; ++i) {
      sum(c);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
  for (int r = 0; r < 2; ++r) EXPECT_EQ(line(r), "ready");
  for (int r = 0; r < 2; ++r) signal(r, SIGSTOP);
  std::this_thread::sleep_for(std::chrono::milliseconds(2000));
  for (int r = 0; r < 2; ++r) signal(r, SIGCONT);
  for (int r = 0; r < 2; ++r) EXPECT_EQ(line(r), "done");
}

TEST_F(Processes, OneThatDoesNotComeBackIsEndedAndRankZeroPrintsWhy) {
  for (const int hung : {0, 1}) {
    start(2, {.timeout = 0.5, .grace = 0.5}, [&](Communicator& c, const auto& ready) {
      sum(c);
      ready();
      c.working_on({"reading data", 5});
      if (c.rank() == hung) sleep_for_ever();
      c.barrier();
    });
    for (int r = 0; r < 2; ++r) EXPECT_EQ(line(r), "ready");
    const std::string name = "rank " + std::to_string(hung) + " on test " + process(hung);
    EXPECT_THAT(line(0), AllOf(StartsWith("error: "), HasSubstr(name),
                               HasSubstr("at \"step 5: reading data\"")));
    if (hung == 1) {
      EXPECT_EQ(line(1), "");
    } else {
      EXPECT_THAT(line(1), StartsWith("peer: " + name));
    }
    EXPECT_EQ(exit_code(hung), 4);
    EXPECT_EQ(exit_code(1 - hung), 0);
    forget();
  }
}

}  // namespace
}  // namespace ftrain
