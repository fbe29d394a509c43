#include <png.h>
#include <turbojpeg.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

#include "core/data/resize.h"
#include "ftrain/base/error.h"
#include "ftrain/data/image.h"

namespace ftrain {
namespace {

using Bytes = std::span<const std::uint8_t>;

// Above this many pixels a header is taken for damage, not for an order to allocate.
constexpr std::int64_t most_pixels = std::int64_t{1} << 28;

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw DataError(where + ": " + what);
}

void allocate(Image& image, std::int64_t width, std::int64_t height, const std::string& where) {
  if (width < 1 || height < 1 || width > most_pixels / height)
    fail(where, "an image of " + std::to_string(width) + " x " + std::to_string(height) +
                    " pixels is not believable (at most 2^28 pixels); the header is damaged");
  image.width = static_cast<int>(width);
  image.height = static_cast<int>(height);
  image.pixels.resize(static_cast<std::size_t>(width * height * 3));
}

void decode_png(Bytes bytes, const std::string& where, Image& image) {
  png_image png;
  std::memset(&png, 0, sizeof png);
  png.version = PNG_IMAGE_VERSION;
  const auto check = [&](int ok) {
    if (ok) return;
    const std::string message = png.message;
    png_image_free(&png);
    fail(where, "the PNG image is damaged: " + message);
  };
  check(png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()));
  try {
    allocate(image, png.width, png.height, where);
    // Without the flag, 16-bit images that do not say otherwise are taken for linear light.
    png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
    // Alpha is dropped, not blended: where there is any, it is read and left out.
    if ((png.format & PNG_FORMAT_FLAG_ALPHA) == 0) {
      png.format = PNG_FORMAT_RGB;
      check(png_image_finish_read(&png, nullptr, image.pixels.data(), 0, nullptr));
      return;
    }
    png.format = PNG_FORMAT_RGBA;
    std::vector<std::uint8_t> rgba(image.pixels.size() / 3 * 4);
    check(png_image_finish_read(&png, nullptr, rgba.data(), 0, nullptr));
    const std::uint8_t* source = rgba.data();
    for (std::size_t i = 0; i < image.pixels.size(); i += 3, source += 4)
      std::copy_n(source, 3, image.pixels.data() + i);
  } catch (...) {
    png_image_free(&png);
    throw;
  }
}

// Binary PPM: "P6", width, height and 255 in decimal, each after white space or comments, one white
// space, then the pixels.
void decode_ppm(Bytes bytes, const std::string& where, Image& image) {
  std::size_t at = 2;
  const auto number = [&]() -> std::int64_t {
    while (at < bytes.size() && (std::isspace(bytes[at]) || bytes[at] == '#')) {
      if (bytes[at] == '#')
        while (at < bytes.size() && bytes[at] != '\n') ++at;
      else
        ++at;
    }
    std::int64_t value = -1;
    for (; at < bytes.size() && std::isdigit(bytes[at]) && value < most_pixels; ++at)
      value = std::max<std::int64_t>(value, 0) * 10 + (bytes[at] - '0');
    if (value < 0) fail(where, "the PPM image has a damaged header");
    return value;
  };
  const std::int64_t width = number(), height = number(), highest = number();
  if (highest != 255)
    fail(where,
         "a PPM image must have 255 as its highest value, this one has " + std::to_string(highest));
  ++at;
  allocate(image, width, height, where);
  const std::size_t left = at < bytes.size() ? bytes.size() - at : 0;
  if (left < image.pixels.size())
    fail(where, "the PPM image is cut short: " + std::to_string(left) +
                    " bytes of pixels instead of " + std::to_string(image.pixels.size()));
  std::copy_n(bytes.data() + at, image.pixels.size(), image.pixels.data());
}

template <std::size_t N>
bool begins(Bytes bytes, const std::array<std::uint8_t, N>& magic) {
  return bytes.size() >= N && std::equal(magic.begin(), magic.end(), bytes.begin());
}

}  // namespace

struct Decoder::State {
  tjhandle jpeg = tjInitDecompress();
  Image image;  // decode_to(): the image before it is resized
  ResizeScratch scratch;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (jpeg) tjDestroy(jpeg);
  }

  void decode_jpeg(Bytes bytes, const std::string& where, Image& target) {
    if (!jpeg) fail(where, std::string("libjpeg-turbo did not start: ") + tjGetErrorStr());
    const auto check = [&](int result) {
      if (result == 0) return;
      const std::string message = std::string("the JPEG image is damaged: ") + tjGetErrorStr2(jpeg);
      // After a damaged header libjpeg-turbo 2.1 would go on in the middle of the next image's.
      tjDestroy(jpeg);
      jpeg = tjInitDecompress();
      fail(where, message);
    };
    int width = 0, height = 0, subsampling = 0, colours = 0;
    const auto length = static_cast<unsigned long>(bytes.size());
    check(tjDecompressHeader3(jpeg, bytes.data(), length, &width, &height, &subsampling, &colours));
    allocate(target, width, height, where);
    // libjpeg only warns of entropy data that end early or make no sense, and invents the rest.
    check(tjDecompress2(jpeg, bytes.data(), length, target.pixels.data(), width, 0, height,
                        TJPF_RGB, TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING));
  }
};

Decoder::Decoder() : state_(std::make_unique<State>()) {}
Decoder::~Decoder() = default;

void Decoder::decode(Bytes bytes, const std::string& where, Image& image) {
  if (begins<3>(bytes, {0xFF, 0xD8, 0xFF})) return state_->decode_jpeg(bytes, where, image);
  if (begins<8>(bytes, {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'}))
    return decode_png(bytes, where, image);
  if (begins<2>(bytes, {'P', '6'})) return decode_ppm(bytes, where, image);
  if (bytes.empty()) fail(where, "the image has no bytes");
  std::string head;
  for (const std::uint8_t byte : bytes.first(std::min<std::size_t>(bytes.size(), 4))) {
    constexpr char digits[] = "0123456789abcdef";
    head += {' ', digits[byte >> 4], digits[byte & 15]};
  }
  fail(where, "the image is neither JPEG nor PNG nor binary PPM: it begins with the bytes" + head);
}

void Decoder::decode_to(Bytes bytes, const std::string& where, int size, std::uint8_t* out) {
  Image& image = state_->image;
  decode(bytes, where, image);
  if (image.width == size && image.height == size)
    std::copy(image.pixels.begin(), image.pixels.end(), out);
  else
    resize_into(image.pixels.data(), image.width, image.height, size, out, state_->scratch);
}

}  // namespace ftrain
