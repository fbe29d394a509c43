#include "ftrain/device/communicator.h"

#include <algorithm>

#include "ftrain/base/error.h"

namespace ftrain {

std::string Work::text() const {
  return step > 0 ? "step " + std::to_string(step) + ": " + what : what;
}

std::string RankPlace::text() const {
  std::string text = "rank " + std::to_string(rank);
  if (!host.empty()) text += " on " + host;
  return text;
}

DeviceCollectives::~DeviceCollectives() = default;
Communicator::~Communicator() = default;

void Communicator::carry_by(std::unique_ptr<Communicator>) {
  throw CommunicationError(
      "a communicator that carries memory of the host itself was given another");
}

std::vector<std::string> gather_texts(Communicator& communicator, const std::string& mine) {
  const auto ranks = static_cast<std::size_t>(communicator.size());
  const auto length = static_cast<std::int64_t>(mine.size());
  std::vector<std::int64_t> lengths(ranks);
  communicator.all_gather(&length, lengths.data(), sizeof length);
  const auto longest = static_cast<std::size_t>(*std::max_element(lengths.begin(), lengths.end()));
  std::string padded = mine;
  padded.resize(longest);
  std::string all(longest * ranks, '\0');
  if (longest > 0) communicator.all_gather(padded.data(), all.data(), longest);
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < ranks; ++r) {
    texts.push_back(all.substr(r * longest, static_cast<std::size_t>(lengths[r])));
  }
  return texts;
}

}  // namespace ftrain
