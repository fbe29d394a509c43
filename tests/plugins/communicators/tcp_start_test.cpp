// How ranks over TCP meet: late ones, missing ones, wrong ones, twice the same one.
#include <gmock/gmock.h>
#include <poll.h>
#include <unistd.h>

#include <fstream>

#include "plugins/communicators/tcp/packet.h"
#include "plugins/communicators/tcp/rendezvous.h"
#include "tests/plugins/communicators/tcp_ranks.h"

namespace ftrain {
namespace {

using namespace tcp_ranks;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

TEST(TcpStart, WaitsForRankZeroAndForTheLast) {
  const Port port;
  std::vector<std::string> errors(3);
  std::vector<std::thread> threads;
  for (int rank = 2; rank >= 0; --rank) {
    threads.emplace_back([&, rank] {
      std::this_thread::sleep_for(milliseconds(rank == 0 ? 300 : rank * 250));
      errors[static_cast<std::size_t>(rank)] =
          run_rank(place_of(rank, 3, port), [](Communicator& c) { c.barrier(); });
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect_no_errors(errors);
}

TEST(TcpStart, NamesTheRanksThatDidNotCome) {
  const Port port;
  std::string at_zero, at_two;
  const auto gather = [&](int rank) -> std::string {
    try {
      tcp::gather(place_of(rank, 7, port), "", tcp::Clock::now() + milliseconds(400));
      return "";
    } catch (const CommunicationError& error) {
      return error.what();
    }
  };
  std::thread zero([&] { at_zero = gather(0); });
  at_two = gather(2);
  zero.join();
  for (const std::string& error : {at_zero, at_two}) {
    EXPECT_THAT(error, AllOf(HasSubstr("ranks 1, 3-6 of job 'test' did not come to rank 0"),
                             HasSubstr("127.0.0.1:" + std::to_string(port.number()))));
  }
  EXPECT_THAT(at_two, HasSubstr("rank 2 on node02: "));
}

TEST(TcpStart, SaysThatRankZeroIsNotThere) {
  const Port port;
  try {
    tcp::gather(place_of(1, 2, port), "", tcp::Clock::now() + milliseconds(100));
    ADD_FAILURE() << "nobody was there";
  } catch (const CommunicationError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("rank 1 on node01: rank 0 is not there"),
                      HasSubstr(std::to_string(port.number())), HasSubstr("Connection refused")));
  }
}

TEST(TcpStart, SendsOthersAwayWithoutHarm) {
  const Port port;
  std::vector<std::string> errors(2);
  std::thread zero([&] { errors[0] = run_rank(place_of(0, 2, port), [](Communicator&) {}); });
  const auto nothing = [](Communicator&) {};
  EXPECT_THAT(run_rank(place_of(1, 2, port, "another"), nothing),
              AllOf(HasSubstr("rank 1 on node01: "), HasSubstr("job 'test' of 2 ranks"),
                    HasSubstr("not job 'another' of 2 ranks")));
  EXPECT_THAT(run_rank(place_of(1, 3, port), nothing),
              AllOf(HasSubstr("job 'test' of 2 ranks"), HasSubstr("not job 'test' of 3 ranks")));
  // One that says nothing and one that says nonsense.
  const tcp::Endpoint where{"127.0.0.1", port.number()};
  const auto soon = [] { return tcp::Clock::now() + std::chrono::seconds(5); };
  const tcp::Socket silent = tcp::connect_to(where, soon()),
                    browser = tcp::connect_to(where, soon());
  const std::string request = "GET / HTTP/1.1\r\nHost: node00\r\n\r\n";
  EXPECT_EQ(::send(browser.fd(), request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  char byte;
  EXPECT_TRUE(tcp::wait_for(browser, POLLIN, soon()));
  EXPECT_LE(::recv(browser.fd(), &byte, 1, 0), 0);
  errors[1] = run_rank(place_of(1, 2, port), [](Communicator&) {});
  zero.join();
  expect_no_errors(errors);
}

TEST(TcpStart, NamesBothHostsOfARankThatIsThereTwice) {
  const Port port;
  std::vector<RankPlace> places{place_of(0, 3, port), place_of(1, 3, port), place_of(1, 3, port)};
  places[2].host = "node09";
  for (const std::string& error : on_places(places, [](Communicator&) {})) {
    EXPECT_THAT(error, AllOf(HasSubstr("two processes call themselves rank 1 of job 'test'"),
                             HasSubstr("node01"), HasSubstr("node09")));
  }
}

TEST(TcpStart, EndsWhereOneLeavesBeforeAllHaveCome) {
  const Port port;
  std::string at_zero;
  std::thread zero([&] { at_zero = run_rank(place_of(0, 3, port), [](Communicator&) {}); });
  {
    const auto soon = tcp::Clock::now() + std::chrono::seconds(5);
    const tcp::Socket one = tcp::connect_to({"127.0.0.1", port.number()}, soon);
    const int version = 1, size = 3, rank = 1;
    EXPECT_TRUE(tcp::send_packet(
        one, tcp::Packet().add(version).add("test").add(size).add(rank).add("node01").add(""),
        soon));
  }
  zero.join();
  EXPECT_THAT(at_zero, HasSubstr("rank 1 on node01 left while the ranks gathered"));
}

TEST(TcpStart, SaysThatThePortIsTaken) {
  const tcp::Socket taken = tcp::listen_at({"127.0.0.1", 0});
  RankPlace place{.rank = 0, .size = 2, .host = "a", .job = "j", .address = "127.0.0.1"};
  place.port = tcp::this_end(taken).port;
  EXPECT_THAT(run_rank(place, [](Communicator&) {}),
              AllOf(HasSubstr("cannot listen at port " + std::to_string(place.port)),
                    HasSubstr("Address already in use"), HasSubstr("Choose a free port")));
}

TEST(TcpStart, NeedsAnAddress) {
  EXPECT_THAT(run_rank({.rank = 1, .size = 2, .host = "a"}, [](Communicator&) {}),
              AllOf(HasSubstr("rank 1 on a"), HasSubstr("MASTER_ADDR")));
}

TEST(TcpStart, TakesNamesAndBothFamilies) {
  std::vector<std::string> addresses{"localhost", "127.0.0.1"};
  if (std::ifstream("/proc/net/if_inet6").peek() != EOF) addresses.push_back("::1");
  char name[256] = "";
  ASSERT_EQ(::gethostname(name, sizeof name - 1), 0);
  addresses.push_back(name);
  for (const std::string& address : addresses) {
    const Port port;
    std::vector<RankPlace> places;
    for (int rank = 0; rank < 3; ++rank) {
      places.push_back(place_of(rank, 3, port));
      places.back().address = address;
    }
    expect_no_errors(on_places(places, [](Communicator& c) {
      std::int64_t one = 1;
      c.all_reduce(&one, 1, DType::i64, Reduction::sum);
      EXPECT_EQ(one, 3);
    }));
  }
}

}  // namespace
}  // namespace ftrain
