// Image pairs with a verdict, for verification.
//
// A PairSet is a plugin like any other. A job's `[verify] sets` entry that ends in .bin or .tsv is
// read by the plugin of that format; any other entry is a plugin's name, with its keys in
// [verify.NAME]. Thread-safe after open().
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ftrain/config/keys.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

struct Pair {
  std::int64_t first, second;  // indices of images
  bool same;
};

class FTRAIN_API PairSet : public Configurable {
 public:
  static constexpr const char* kind = "verify";
  ~PairSet() override;

  // `path` is empty for sets that are not files. `seed` is the job's.
  virtual void open(const std::filesystem::path& path, std::uint64_t seed) = 0;
  virtual std::int64_t images() const = 0;
  // The encoded image (JPEG, PNG, PPM).
  virtual std::vector<std::uint8_t> image(std::int64_t index) const = 0;
  // In the set's own order: the folds of the protocol are runs of it.
  virtual const std::vector<Pair>& pairs() const = 0;
  virtual std::string describe_image(std::int64_t index) const = 0;
};

}  // namespace ftrain
