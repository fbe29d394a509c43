#include "plugins/communicators/tcp/mesh.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "ftrain/base/error.h"
#include "plugins/communicators/tcp/rendezvous.h"

namespace ftrain::tcp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::int64_t for_tensors = 1, for_news = 2;
constexpr std::int64_t goodbye = 1, failure = 2;
// For how long the reason of a broken connection is waited for.
constexpr auto reason_patience = seconds(1);

}  // namespace

Mesh::Mesh(const RankPlace& place, Deadline deadline)
    : place_(place), peers_(static_cast<std::size_t>(place.size)) {
  if (place_.size == 1) return;
  allow_descriptors(2 * place_.size + 256);
  const Endpoint meeting{place_.address, place_.port};
  // Where the ranks meet on a loopback, nobody else needs to reach them.
  const Socket listener = listen_at({meeting.is_loopback() ? meeting.host : "", 0});
  const Roster roster = gather(place_, std::to_string(this_end(listener).port), deadline);
  std::vector<Endpoint> listeners;
  for (std::size_t r = 0; r < peers_.size(); ++r) {
    peers_[r].host = roster.members[r].host;
    listeners.push_back({roster.members[r].address, std::stoi(roster.members[r].text)});
  }
  connect_lower_ranks(listeners, roster.token, deadline);
  let_higher_ranks_in(listener, roster.token, deadline);
  watch_news();
}

void Mesh::connect_lower_ranks(const std::vector<Endpoint>& listeners, const std::string& token,
                               Deadline deadline) {
  for (int r = 0; r < place_.rank; ++r) {
    Peer& peer = peers_[static_cast<std::size_t>(r)];
    try {
      for (const std::int64_t use : {for_tensors, for_news}) {
        Socket& socket = use == for_tensors ? peer.tensors : peer.news;
        // All listen before the first one knows where: who refuses is gone.
        socket = connect_to(listeners[static_cast<std::size_t>(r)],
                            std::min(deadline, Clock::now() + seconds(10)));
        send_packet(socket, Packet().add(token).add(place_.rank).add(use), deadline);
      }
    } catch (const CommunicationError& error) {
      throw CommunicationError(place_.text() + " does not reach " + name_of(r) + ": " +
                               error.what());
    }
  }
}

void Mesh::let_higher_ranks_in(const Socket& listener, const std::string& token,
                               Deadline deadline) {
  Reception reception(listener);
  const auto is_missing = [](const Peer& p) { return !p.tensors || !p.news; };
  const auto higher = peers_.begin() + place_.rank + 1;
  while (std::any_of(higher, peers_.end(), is_missing)) {
    if (Clock::now() > deadline) {
      std::vector<int> missing;
      for (int r = place_.rank + 1; r < place_.size; ++r) {
        if (is_missing(peer(r))) missing.push_back(r);
      }
      throw CommunicationError(place_.text() + ": " + text_of_ranks(missing) +
                               " did not connect to this rank; do all hosts reach each other?");
    }
    auto guest = reception.next(milliseconds(200));
    if (!guest) continue;
    try {
      if (guest->hello.text() != token) continue;
      const auto rank = static_cast<int>(guest->hello.number());
      if (rank <= place_.rank || rank >= place_.size) continue;
      Peer& peer = peers_[static_cast<std::size_t>(rank)];
      (guest->hello.number() == for_tensors ? peer.tensors : peer.news) = std::move(guest->socket);
    } catch (const CommunicationError&) {
      continue;  // a stranger
    }
  }
}

void Mesh::watch_news() {
  news_ = Socket(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = Socket(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!news_ || !wake_) {
    throw CommunicationError(place_.text() + ": no descriptors left: " + text_of_errno(errno));
  }
  const auto watch = [&](const Socket& socket, int rank) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = rank;
    if (::epoll_ctl(news_.fd(), EPOLL_CTL_ADD, socket.fd(), &event) != 0) {
      throw CommunicationError(place_.text() +
                               ": cannot watch a connection: " + text_of_errno(errno));
    }
  };
  for (int r = 0; r < place_.size; ++r) watch(r == place_.rank ? wake_ : peer(r).news, r);
}

Mesh::~Mesh() {
  const bool failed = !failure_.empty();
  // Who hears of a failure only by this rank's end would take it for the reason.
  tell_all(failed ? failure : goodbye, failure_);
}

std::string Mesh::name_of(int rank) const {
  return RankPlace{.rank = rank, .host = rank == place_.rank ? place_.host : peer(rank).host}
      .text();
}

void Mesh::hear() {
  epoll_event events[32];
  int count;
  do {
    count = ::epoll_wait(news_.fd(), events, std::size(events), 0);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd != place_.rank) hear_of(events[i].data.fd);
    }
    throw_if_failed();
  } while (count == static_cast<int>(std::size(events)));
}

void Mesh::hear_of(int rank) {
  Peer& peer = peers_[static_cast<std::size_t>(rank)];
  auto state = peer.reader.read(peer.news);
  for (; peer.reader.has_packet(); state = peer.reader.read(peer.news)) {
    Packet packet = peer.reader.next();
    if (packet.number() == failure) {
      set_failure(packet.text(), true);
    } else {
      peer.gone = true;
    }
  }
  if (state == PacketReader::State::open && !peer.gone) return;
  ::epoll_ctl(news_.fd(), EPOLL_CTL_DEL, peer.news.fd(), nullptr);
  if (!peer.gone) {
    const std::string what = name_of(rank) + " ended its connection";
    if (set_failure(what, false)) tell_all(failure, what);
  }
}

bool Mesh::set_failure(const std::string& what, bool heard) {
  const std::lock_guard lock(failure_mutex_);
  if (!failure_.empty()) return false;
  failure_ = what;
  heard_ = heard;
  return true;
}

void Mesh::throw_if_failed() {
  const std::lock_guard lock(failure_mutex_);
  if (failure_.empty()) return;
  const std::string text = place_.text() + ": stopped: " + failure_;
  if (heard_) throw PeerError(text);
  throw CommunicationError(text);
}

void Mesh::broken(int rank, const std::string& during) {
  const Deadline until = Clock::now() + reason_patience;
  do {
    hear();
    if (peer(rank).gone) fail(name_of(rank) + " has ended, and others wait for it in " + during);
  } while (wait_for(news_, POLLIN, until));
  fail(name_of(rank) + " ended its connection");
}

void Mesh::fail(const std::string& what) {
  if (set_failure(what, false)) tell_all(failure, what);
  throw_if_failed();
  throw CommunicationError(what);
}

void Mesh::abort(const std::string& reason) {
  const std::string what = place_.text() + " failed: " + reason;
  if (!set_failure(what, false)) return;
  tell_all(failure, what);
  const std::uint64_t one = 1;
  if (wake_ && ::write(wake_.fd(), &one, sizeof one) < 0) return;  // it is awake already
}

void Mesh::tell_all(std::int64_t kind, const std::string& what) {
  const std::lock_guard lock(tell_mutex_);
  const Packet packet = Packet().add(kind).add(what);
  // News are short and rare: a connection that does not take them at once is a dead one.
  for (const Peer& peer : peers_) {
    if (peer.news) send_packet(peer.news, packet, Clock::now());
  }
}

}  // namespace ftrain::tcp
