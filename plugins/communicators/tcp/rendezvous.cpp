#include "plugins/communicators/tcp/rendezvous.h"

#include <poll.h>

#include <algorithm>
#include <iterator>
#include <random>

#include "ftrain/base/error.h"
#include "ftrain/base/log.h"

namespace ftrain::tcp {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::int64_t version = 1;
// What rank 0 answers.
constexpr std::int64_t come_in = 1, go_away = 2;
// For how long a guest may take for its first words, and rank 0's port to become free.
constexpr auto first_words = seconds(10), port_patience = seconds(3);
constexpr auto line_interval = seconds(30);

std::string ranks(int count) {
  return std::to_string(count) + (count == 1 ? " rank" : " ranks");
}

std::string new_token() {
  std::random_device random;
  std::string token;
  for (int i = 0; i < 4; ++i) token += std::to_string(random()) + ".";
  return token;
}

struct Arrived {
  Socket socket;
  PacketReader reader;
  bool here = false;
};

// Rank 0's side.
class Host {
 public:
  Host(const RankPlace& place, const std::string& text)
      : place_(place), where_{place.address, place.port}, listener_(open_door()) {
    roster_.token = new_token();
    roster_.members.resize(static_cast<std::size_t>(place.size));
    arrived_.resize(roster_.members.size());
    // Empty: the way by which the others reached rank 0.
    roster_.members[0] = {place.host, "", text};
    arrived_[0].here = true;
  }

  Roster run(Deadline deadline) {
    try {
      wait_for_all(deadline);
    } catch (const CommunicationError& error) {
      const std::string reason = error.what();
      for (const Arrived& other : arrived_) {
        if (other.socket) send_away(other.socket, reason);
      }
      throw CommunicationError(place_.text() + ": " + reason);
    }
    Packet all;
    all.add(come_in).add(roster_.token);
    for (const Member& m : roster_.members) all.add(m.host).add(m.address).add(m.text);
    for (std::size_t r = 1; r < arrived_.size(); ++r) {
      if (!send_packet(arrived_[r].socket, all, Clock::now() + first_words)) {
        throw CommunicationError(place_.text() + ": " + name(r) + " left while the ranks gathered");
      }
    }
    return std::move(roster_);
  }

 private:
  // The last job's rank 0 may still be on its way out.
  Socket open_door() const {
    const Deadline until = Clock::now() + port_patience;
    while (true) {
      try {
        return listen_at(where_);
      } catch (const CommunicationError& error) {
        if (Clock::now() > until) {
          throw CommunicationError(place_.text() + " " + error.what() + "; rank 0 of job '" +
                                   place_.job +
                                   "' waits there for the other ranks: is another rank 0, another "
                                   "job or a launcher at " +
                                   where_.text() + " of this machine? Choose a free port");
        }
        poll(nullptr, 0, 100);
      }
    }
  }

  void wait_for_all(Deadline deadline) {
    Reception reception(listener_);
    Deadline next_line = Clock::now() + line_interval;
    while (!missing().empty()) {
      if (auto guest = reception.next(milliseconds(200))) receive(std::move(*guest));
      look_for_those_who_left();
      if (Clock::now() > deadline) {
        throw CommunicationError(text_of_ranks(missing()) + " of job '" + place_.job +
                                 "' did not come to rank 0 at " + where_.text() +
                                 " in time; did they start, and do they reach this address?");
      }
      if (Clock::now() > next_line) {
        log::info(place_.text() + " waits at " + where_.text() + " for " +
                  text_of_ranks(missing()));
        next_line = Clock::now() + line_interval;
      }
    }
  }

  void receive(Reception::Guest guest) {
    const Endpoint from = other_end(guest.socket);
    std::int64_t rank, size;
    std::string job, host, text;
    try {
      if (guest.hello.number() != version) {
        send_away(guest.socket, "rank 0 on " + place_.host + " is of another version of ftrain");
        return;
      }
      job = guest.hello.text();
      size = guest.hello.number();
      rank = guest.hello.number();
      host = guest.hello.text();
      text = guest.hello.text();
    } catch (const CommunicationError&) {
      return;  // a stranger
    }
    if (job != place_.job || size != place_.size) {
      const std::string reason = "at " + where_.text() + " is job '" + place_.job + "' of " +
                                 ranks(place_.size) + ", not job '" + job + "' of " +
                                 ranks(static_cast<int>(size)) +
                                 ": give each job a port of its own";
      send_away(guest.socket, reason);
      log::warning("sent a process of " + host + " away: " + reason);
      return;
    }
    if (rank < 0 || rank >= place_.size) {
      send_away(guest.socket,
                "there is no rank " + std::to_string(rank) + " among " + ranks(place_.size));
      return;
    }
    Arrived& seat = arrived_[static_cast<std::size_t>(rank)];
    Member& member = roster_.members[static_cast<std::size_t>(rank)];
    if (seat.here) {
      const std::string reason = "two processes call themselves rank " + std::to_string(rank) +
                                 " of job '" + place_.job + "': one on " + member.host +
                                 " and one on " + host;
      send_away(guest.socket, reason);
      throw CommunicationError(reason);
    }
    // Whoever came by the loopback is on this machine, and others reach it as they reached rank 0.
    member = {host, from.is_loopback() ? "" : from.host, text};
    seat.socket = std::move(guest.socket);
    seat.here = true;
  }

  void look_for_those_who_left() {
    for (std::size_t r = 1; r < arrived_.size(); ++r) {
      Arrived& other = arrived_[r];
      if (!other.here || other.reader.read(other.socket) == PacketReader::State::open) continue;
      other.socket.close();
      throw CommunicationError(name(r) + " left while the ranks gathered");
    }
  }

  static void send_away(const Socket& socket, const std::string& reason) {
    send_packet(socket, Packet().add(go_away).add(reason), Clock::now() + seconds(1));
  }

  std::vector<int> missing() const {
    std::vector<int> missing;
    for (std::size_t r = 0; r < arrived_.size(); ++r) {
      if (!arrived_[r].here) missing.push_back(static_cast<int>(r));
    }
    return missing;
  }
  std::string name(std::size_t r) const {
    return "rank " + std::to_string(r) + " on " + roster_.members[r].host;
  }

  const RankPlace& place_;
  const Endpoint where_;
  Socket listener_;
  Roster roster_;
  std::vector<Arrived> arrived_;
};

Roster come(const RankPlace& place, const std::string& text, Deadline deadline) {
  const Endpoint where{place.address, place.port};
  const auto fail = [&](const std::string& reason) -> CommunicationError {
    return CommunicationError(place.text() + ": " + reason);
  };
  Socket socket;
  try {
    socket = connect_to(where, deadline, [&](const std::string& why) {
      log::info(place.text() + " waits for rank 0 at " + where.text() + ": " + why);
    });
  } catch (const CommunicationError& error) {
    throw fail("rank 0 is not there: " + std::string(error.what()));
  }
  const Packet hello = Packet()
                           .add(version)
                           .add(place.job)
                           .add(place.size)
                           .add(place.rank)
                           .add(place.host)
                           .add(text);
  PacketReader reader;
  auto state = PacketReader::State::open;
  send_packet(socket, hello, deadline);  // where it fails, rank 0 may have said why
  // Rank 0 knows better who is missing: it speaks first.
  const Deadline until = deadline + seconds(10);
  while (state == PacketReader::State::open && !reader.has_packet()) {
    if (!wait_for(socket, POLLIN, until)) throw fail("rank 0 at " + where.text() + " is silent");
    state = reader.read(socket);
  }
  if (!reader.has_packet()) {
    throw fail(state == PacketReader::State::stranger
                   ? "what answers at " + where.text() + " is not rank 0 of an ftrain job"
                   : "rank 0 at " + where.text() +
                         " ended its connection while the ranks gathered");
  }
  Packet answer = reader.next();
  if (answer.number() != come_in) throw fail(answer.text());
  Roster roster;
  roster.token = answer.text();
  for (int r = 0; r < place.size; ++r) {
    Member member;
    member.host = answer.text();
    member.address = answer.text();
    member.text = answer.text();
    if (member.address.empty()) member.address = other_end(socket).host;
    roster.members.push_back(member);
  }
  return roster;
}

}  // namespace

Roster gather(const RankPlace& place, const std::string& text, Deadline deadline) {
  return place.rank == 0 ? Host(place, text).run(deadline) : come(place, text, deadline);
}

std::optional<Reception::Guest> Reception::next(milliseconds patience) {
  std::vector<pollfd> entries{{listener_.fd(), POLLIN, 0}};
  for (const Pending& p : pending_) entries.push_back({p.socket.fd(), POLLIN, 0});
  ::poll(entries.data(), entries.size(), static_cast<int>(patience.count()));
  while (auto socket = accept_from(listener_)) {
    pending_.push_back({std::move(*socket), {}, Clock::now() + first_words});
  }
  for (auto guest = pending_.begin(); guest != pending_.end();) {
    const auto state = guest->reader.read(guest->socket);
    if (guest->reader.has_packet()) {
      Guest ready{std::move(guest->socket), guest->reader.next()};
      pending_.erase(guest);
      return ready;
    }
    const bool over = state != PacketReader::State::open || Clock::now() > guest->until;
    guest = over ? pending_.erase(guest) : std::next(guest);
  }
  return {};
}

std::string text_of_ranks(const std::vector<int>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += std::to_string(ranks[i]);
    if (end - i > 1) text += (end - i == 2 ? ", " : "-") + std::to_string(ranks[end - 1]);
    i = end;
  }
  return (ranks.size() == 1 ? "rank " : "ranks ") + text;
}

}  // namespace ftrain::tcp
