// Decoding and encoding of images.
//
// JPEG by libjpeg-turbo, PNG by libpng, binary PPM (P6) by ourselves: recognised by their first
// bytes, never by a file's name. An image that is cut short or damaged is a DataError, even where
// its library would only warn. Threads: a Decoder belongs to one thread; the functions are free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ftrain/plugin/api.h"

namespace ftrain {

// 8-bit RGB, rows top to bottom, 3 bytes a pixel without padding.
struct Image {
  int width = 0, height = 0;
  std::vector<std::uint8_t> pixels;
};

class FTRAIN_API Decoder {
 public:
  Decoder();
  ~Decoder();
  // Any size; grey images become RGB, alpha is dropped. `where` names the image in errors
  // (DataError): "train.rec record 17".
  void decode(std::span<const std::uint8_t> bytes, const std::string& where, Image& image);
  // The same into `size` x `size` RGB at `out`, by resize() when the image has another size.
  void decode_to(std::span<const std::uint8_t> bytes, const std::string& where, int size,
                 std::uint8_t* out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Short side to `size`, then centre crop: bilinear between pixel centres; where it shrinks, the
// filter widens with the factor, so that every source pixel counts (no aliasing).
FTRAIN_API Image resize(const Image& image, int size);

FTRAIN_API std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality);
FTRAIN_API std::vector<std::uint8_t> encode_ppm(const Image& image);
// Lossless. Throws DataError when the file cannot be written; writes beside and renames.
FTRAIN_API void write_png(const std::filesystem::path& file, const Image& image);

}  // namespace ftrain
