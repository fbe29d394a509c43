// Labelled images by index.
//
// A Dataset is cheap to open, random-access and thread-safe: read() is called by many decode
// threads at once. It hands out *encoded* images (JPEG, PNG or binary PPM); decoding is the
// loader's. Shapes: every image decodes to 8-bit RGB of any size; the loader resizes to the job's
// image size. Failure: DataError naming the file and the record number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ftrain/config/keys.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

struct Sample {
  std::vector<std::uint8_t> bytes;  // the encoded image; capacity is reused from call to call
  std::int64_t label = 0;           // 0 <= label < classes()
};

class FTRAIN_API Dataset : public Configurable {
 public:
  static constexpr const char* kind = "dataset";
  ~Dataset() override;

  // Called once after configure(), before anything else. `seed` is the job's.
  virtual void open(std::uint64_t seed) = 0;
  virtual std::int64_t size() const = 0;
  virtual std::int64_t classes() const = 0;
  // Fills `sample`; 0 <= index < size().
  virtual void read(std::int64_t index, Sample& sample) const = 0;
  // How messages name a sample: "lfw/train.rec record 812".
  virtual std::string describe_sample(std::int64_t index) const = 0;
  // One line for `ftrain data info` and the log at start.
  virtual std::string summary() const = 0;
};

}  // namespace ftrain
