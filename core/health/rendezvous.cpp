#include "core/health/rendezvous.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <thread>

#include "ftrain/base/error.h"
#include "ftrain/base/suggest.h"

namespace ftrain {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMeetingSeconds = 30;
constexpr double kAddressSeconds = 2;

// How a rank is known and, of rank 0, where it listens.
struct Introduction {
  std::string host;
  std::int64_t process = 0, port = 0;
  std::string token;
  std::vector<std::string> outside, loopback;

  std::string text() const {
    Body body;
    body.put(host).put(process).put(port).put(token);
    for (const auto* list : {&outside, &loopback}) {
      body.put(static_cast<std::int64_t>(list->size()));
      for (const std::string& address : *list) body.put(address);
    }
    return body.text();
  }
  static Introduction of(const std::string& text) {
    Body body(text);
    Introduction result;
    result.host = body.word();
    result.process = body.number();
    result.port = body.number();
    result.token = body.word();
    for (auto* list : {&result.outside, &result.loopback}) {
      for (std::int64_t left = body.number(); left > 0; --left) list->push_back(body.word());
    }
    return result;
  }
};

std::string random_token() {
  std::random_device source;
  std::string token;
  for (int i = 0; i < 4; ++i) token += std::to_string(source()) + "-";
  return token;
}

double seconds_until(Clock::time_point end) {
  return std::chrono::duration<double>(end - Clock::now()).count();
}

Clock::time_point in_seconds(double seconds) {
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// The next frame, if it comes in time.
std::optional<Frame> wait_for_frame(Link& link, Clock::time_point end) {
  while (true) {
    if (auto frame = link.take()) return frame;
    const double left = seconds_until(end);
    if (!link.open() || left <= 0) return {};
    pollfd wait{link.socket(), POLLIN, 0};
    poll(&wait, 1, static_cast<int>(left * 1000) + 1);
    link.receive();
  }
}

// Rank 0: takes the other ranks in and sends strangers away; returns when all are there or none
// comes any more.
std::vector<Link> receive_ranks(Listener& listener, const std::string& token, int ranks) {
  const auto end = in_seconds(kMeetingSeconds);
  std::vector<Link> links(static_cast<std::size_t>(ranks)), unknown;
  int missing = ranks - 1;
  while (missing > 0 && seconds_until(end) > 0) {
    std::vector<pollfd> waits{{listener.socket(), POLLIN, 0}};
    for (const Link& link : unknown) waits.push_back({link.socket(), POLLIN, 0});
    poll(waits.data(), waits.size(), static_cast<int>(seconds_until(end) * 1000) + 1);
    for (Link link = listener.accept(); link.open(); link = listener.accept()) {
      unknown.push_back(std::move(link));
    }
    for (Link& link : unknown) {
      link.receive();
      auto frame = link.take();
      if (!frame) continue;
      Body body(frame->body);
      const std::string word = body.word();
      const std::int64_t rank = body.number();
      if (frame->kind != FrameKind::hello || word != token || rank < 1 || rank >= ranks) {
        link.close();
        continue;
      }
      Link& known = links[static_cast<std::size_t>(rank)];
      if (!known.open()) --missing;
      link.send(FrameKind::welcome, token);
      known = std::move(link);
      link.close();
    }
    std::erase_if(unknown, [](const Link& link) { return !link.open(); });
  }
  return links;
}

// The others: tries rank 0's addresses in turn until one of them is rank 0.
Link reach(const Introduction& first, const RankPlace& place, std::vector<std::string>& tried) {
  // Where the ranks met is known to be reachable; an address of the machine alone says nothing
  // elsewhere.
  if (!place.address.empty()) tried.push_back(place.address);
  tried.insert(tried.end(), first.outside.begin(), first.outside.end());
  if (first.host == place.host) {
    tried.insert(tried.end(), first.loopback.begin(), first.loopback.end());
  }
  const auto end = in_seconds(kMeetingSeconds);
  while (true) {
    for (const std::string& address : tried) {
      Link link = Link::to(address, static_cast<int>(first.port), kAddressSeconds);
      if (!link.open()) continue;
      link.send(FrameKind::hello, Body().put(first.token).put(std::int64_t{place.rank}).text());
      const auto answer = wait_for_frame(link, in_seconds(kAddressSeconds));
      if (answer && answer->kind == FrameKind::welcome && answer->body == first.token) return link;
    }
    if (seconds_until(end) <= 0) return {};
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

}  // namespace

Meeting meet(Communicator& inner) {
  const int rank = inner.rank(), size = inner.size();
  RankPlace place = inner.place();
  std::unique_ptr<Listener> listener;
  Introduction mine;
  mine.host = place.host;
  mine.process = getpid();
  std::string error;
  if (rank == 0) {
    try {
      listener = std::make_unique<Listener>();
      const OwnAddresses own = own_addresses();
      mine.port = listener->port();
      mine.token = random_token();
      mine.outside = own.outside;
      mine.loopback = own.loopback;
    } catch (const CommunicationError& failure) {
      error = failure.what();
    }
  }

  Meeting meeting;
  Introduction first;
  for (const std::string& text : gather_texts(inner, mine.text())) {
    const Introduction one = Introduction::of(text);
    if (meeting.names.empty()) first = one;
    RankPlace other;
    other.rank = static_cast<int>(meeting.names.size());
    other.host = one.host;
    meeting.names.push_back(other.text() + " (process " + std::to_string(one.process) + ")");
    meeting.hosts.push_back(one.host);
  }

  place.rank = rank;
  if (rank == 0 && listener) {
    meeting.links = receive_ranks(*listener, mine.token, size);
  } else if (rank != 0 && first.port != 0) {
    std::vector<std::string> tried;
    meeting.links.push_back(reach(first, place, tried));
    if (!meeting.links[0].open()) {
      error = meeting.names[static_cast<std::size_t>(rank)] + " cannot reach " + meeting.names[0] +
              " on port " + std::to_string(first.port) + " of " + join(tried, " or ") +
              ". The ranks' machines must accept each other's TCP connections on any port.";
    }
  }
  for (const std::string& text : gather_texts(inner, error)) {
    if (text.empty()) continue;
    if (rank == 0) throw CommunicationError(text);
    throw PeerError(text);
  }
  return meeting;
}

}  // namespace ftrain
