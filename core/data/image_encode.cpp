#include <png.h>
#include <turbojpeg.h>
#include <unistd.h>

#include <cstring>

#include "ftrain/base/error.h"
#include "ftrain/data/image.h"

namespace ftrain {

std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality) {
  const std::unique_ptr<void, int (*)(tjhandle)> handle(tjInitCompress(), tjDestroy);
  unsigned char* bytes = nullptr;
  unsigned long length = 0;
  const int result =
      handle ? tjCompress2(handle.get(), image.pixels.data(), image.width, 0, image.height,
                           TJPF_RGB, &bytes, &length, TJSAMP_420, quality, TJFLAG_ACCURATEDCT)
             : -1;
  const std::unique_ptr<unsigned char, void (*)(unsigned char*)> owner(bytes, tjFree);
  if (result != 0)
    throw DataError("an image of " + std::to_string(image.width) + " x " +
                    std::to_string(image.height) + " pixels does not become a JPEG of quality " +
                    std::to_string(quality) + ": " + tjGetErrorStr());
  return {bytes, bytes + length};
}

std::vector<std::uint8_t> encode_ppm(const Image& image) {
  const std::string header =
      "P6\n" + std::to_string(image.width) + " " + std::to_string(image.height) + "\n255\n";
  std::vector<std::uint8_t> bytes;
  bytes.reserve(header.size() + image.pixels.size());
  bytes.assign(header.begin(), header.end());
  bytes.insert(bytes.end(), image.pixels.begin(), image.pixels.end());
  return bytes;
}

void write_png(const std::filesystem::path& file, const Image& image) {
  // Beside the target, so that the rename stays within one file system.
  auto beside = file;
  beside.concat(".").concat(std::to_string(::getpid())).concat(".part");
  png_image png;
  std::memset(&png, 0, sizeof png);
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_RGB;
  std::error_code error;
  if (!png_image_write_to_file(&png, beside.c_str(), 0, image.pixels.data(), 0, nullptr)) {
    const std::string message = png.message;
    std::filesystem::remove(beside, error);
    throw DataError(file.string() + ": the PNG image cannot be written: " + message);
  }
  std::filesystem::rename(beside, file, error);
  if (error) {
    const std::string message = error.message();
    std::filesystem::remove(beside, error);
    throw DataError(file.string() + ": the PNG image cannot be written: " + message);
  }
}

}  // namespace ftrain
