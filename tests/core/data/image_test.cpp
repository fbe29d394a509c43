#include "ftrain/data/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

using ::testing::HasSubstr;

// A smooth picture: JPEG keeps it nearly as it is.
Image gradient(int width, int height) {
  Image image{width, height, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (const int value : {255 * x / width, 255 * y / height, 128})
        image.pixels.push_back(static_cast<std::uint8_t>(value));
  return image;
}

// The PNG bytes of `pixels` in a format of libpng's simplified interface.
std::vector<std::uint8_t> png_of(int width, int height, png_uint_32 format, const void* pixels,
                                 const void* colours = nullptr, int count = 0) {
  png_image png;
  std::memset(&png, 0, sizeof png);
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(width);
  png.height = static_cast<png_uint_32>(height);
  png.format = format;
  png.colormap_entries = static_cast<png_uint_32>(count);
  std::vector<std::uint8_t> bytes(65536);
  png_alloc_size_t length = bytes.size();
  EXPECT_TRUE(png_image_write_to_memory(&png, bytes.data(), &length, 0, pixels, 0, colours));
  bytes.resize(length);
  return bytes;
}

Image decode(const std::vector<std::uint8_t>& bytes) {
  Image image;
  Decoder().decode(bytes, "test image", image);
  return image;
}

std::string error_of(const std::vector<std::uint8_t>& bytes) {
  try {
    decode(bytes);
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Image, JpegKeepsASmoothPicture) {
  const Image image = gradient(40, 24);
  const Image back = decode(encode_jpeg(image, 95));
  ASSERT_EQ(back.width, 40);
  ASSERT_EQ(back.height, 24);
  ASSERT_EQ(back.pixels.size(), image.pixels.size());
  for (std::size_t i = 0; i < image.pixels.size(); ++i)
    ASSERT_NEAR(image.pixels[i], back.pixels[i], 8) << "at " << i;
}

TEST(Image, PpmIsExact) {
  const Image image = gradient(7, 5);
  EXPECT_EQ(decode(encode_ppm(image)).pixels, image.pixels);
}

TEST(Image, PpmHeaderMayHoldComments) {
  const std::string text = "P6 # made by hand\n2 1\n# more\n255\nabcdef";
  const Image image = decode({text.begin(), text.end()});
  EXPECT_EQ(image.width, 2);
  EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{'a', 'b', 'c', 'd', 'e', 'f'}));
}

TEST(Image, PngFileIsExactAndAlone) {
  const auto folder = std::filesystem::path(::testing::TempDir()) / "ftrain_png";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory(folder);
  const Image image = gradient(9, 6);
  write_png(folder / "a.png", image);
  write_png(folder / "a.png", image);
  std::ifstream stream(folder / "a.png", std::ios::binary);
  const std::vector<std::uint8_t> bytes((std::istreambuf_iterator<char>(stream)), {});
  EXPECT_EQ(decode(bytes).pixels, image.pixels);
  const auto files = std::filesystem::directory_iterator(folder);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
  EXPECT_THROW(write_png(folder / "absent" / "a.png", image), DataError);
}

TEST(Image, PngOfEveryKindBecomesRgb) {
  const std::uint8_t grey[] = {0, 100, 255};
  EXPECT_EQ(decode(png_of(3, 1, PNG_FORMAT_GRAY, grey)).pixels,
            (std::vector<std::uint8_t>{0, 0, 0, 100, 100, 100, 255, 255, 255}));
  // Alpha is dropped, not blended.
  const std::uint8_t rgba[] = {10, 20, 30, 0, 40, 50, 60, 128};
  EXPECT_EQ(decode(png_of(2, 1, PNG_FORMAT_RGBA, rgba)).pixels,
            (std::vector<std::uint8_t>{10, 20, 30, 40, 50, 60}));
  const std::uint8_t colours[] = {1, 2, 3, 200, 100, 50}, which[] = {1, 0, 1};
  EXPECT_EQ(decode(png_of(3, 1, PNG_FORMAT_RGB_COLORMAP, which, colours, 2)).pixels,
            (std::vector<std::uint8_t>{200, 100, 50, 1, 2, 3, 200, 100, 50}));
  const std::uint16_t deep[] = {0, 0, 0, 65535, 65535, 65535};
  EXPECT_EQ(decode(png_of(2, 1, PNG_FORMAT_LINEAR_RGB, deep)).pixels,
            (std::vector<std::uint8_t>{0, 0, 0, 255, 255, 255}));
}

TEST(Image, TruncationIsAnErrorEverywhere) {
  const Image image = gradient(48, 48);
  const std::uint8_t grey[64] = {};
  for (const auto& whole :
       {encode_jpeg(image, 90), encode_ppm(image), png_of(8, 8, PNG_FORMAT_GRAY, grey)}) {
    EXPECT_EQ(error_of(whole), "no error");
    for (const std::size_t cut : {whole.size() - 20, whole.size() / 2, std::size_t{12}}) {
      const std::string error = error_of({whole.begin(), whole.begin() + static_cast<long>(cut)});
      EXPECT_THAT(error, HasSubstr("test image: ")) << cut << " of " << whole.size();
    }
  }
}

TEST(Image, DamagedJpegIsAnError) {
  auto bytes = encode_jpeg(gradient(64, 64), 90);
  for (std::size_t i = bytes.size() / 2; i < bytes.size() / 2 + 40; ++i) bytes[i] = 0xFF;
  EXPECT_THAT(error_of(bytes), HasSubstr("the JPEG image is damaged"));
}

TEST(Image, OtherBytesAreNamed) {
  EXPECT_THAT(error_of({0x47, 0x49, 0x46, 0x38, 0x39}),
              HasSubstr("begins with the bytes 47 49 46 38"));
  EXPECT_THAT(error_of({}), HasSubstr("has no bytes"));
  const std::string huge = "P6 100000 100000 255\n", deep = "P6 1 1 65535\nabcdef";
  EXPECT_THAT(error_of({huge.begin(), huge.end()}), HasSubstr("not believable"));
  EXPECT_THAT(error_of({deep.begin(), deep.end()}), HasSubstr("255 as its highest value"));
}

TEST(Image, ADecoderGoesOnAfterAnError) {
  const Image image = gradient(32, 32);
  const auto good = encode_jpeg(image, 90);
  Decoder decoder;
  Image first, second;
  decoder.decode(good, "a", first);
  for (std::size_t length = 3; length < good.size(); length += 7) {  // headers and pixels
    EXPECT_THROW(decoder.decode({good.data(), length}, "b", second), DataError) << length;
    decoder.decode(good, "c", second);
    EXPECT_EQ(first.pixels, second.pixels);
  }
}

TEST(Image, ResizingKeepsAConstantAndTheCentre) {
  Image flat{30, 50, std::vector<std::uint8_t>(30 * 50 * 3, 77)};
  for (const int size : {7, 30, 64}) {
    const Image small = resize(flat, size);
    EXPECT_EQ(small.width, size);
    EXPECT_EQ(small.height, size);
    EXPECT_EQ(small.pixels,
              std::vector<std::uint8_t>(static_cast<std::size_t>(size * size * 3), 77));
  }
  // 2 x 4: the crop is the middle two rows, unchanged.
  Image tall{2, 4, {}};
  for (int i = 0; i < 24; ++i) tall.pixels.push_back(static_cast<std::uint8_t>(i * 10));
  EXPECT_EQ(resize(tall, 2).pixels,
            std::vector<std::uint8_t>(tall.pixels.begin() + 6, tall.pixels.begin() + 18));
}

TEST(Image, ResizingIsBilinearBetweenPixelCentres) {
  // Columns 0 and 200, enlarged to 4: centres at -0.25, 0.25, 0.75, 1.25 between the two.
  const Image two{2, 2, {0, 0, 0, 200, 200, 200, 0, 0, 0, 200, 200, 200}};
  const Image four = resize(two, 4);
  const std::uint8_t expected[] = {0, 50, 150, 200};
  for (int y = 0; y < 4; ++y)
    for (int x = 0; x < 4; ++x)
      EXPECT_EQ(four.pixels[static_cast<std::size_t>((y * 4 + x) * 3)], expected[x]);
}

TEST(Image, ShrinkingCountsEveryPixel) {
  // A checkerboard of single pixels shrinks to its mean: no aliasing.
  Image board{64, 64, {}};
  for (int y = 0; y < 64; ++y)
    for (int x = 0; x < 64; ++x)
      for (int c = 0; c < 3; ++c)
        board.pixels.push_back(static_cast<std::uint8_t>((x + y) % 2 ? 255 : 0));
  for (const std::uint8_t value : resize(board, 8).pixels) EXPECT_NEAR(value, 127.5, 2);
}

TEST(Image, DecodeToResizesAsResizeDoes) {
  const Image image = gradient(40, 30);
  std::vector<std::uint8_t> out(16 * 16 * 3), same(30 * 30 * 3);
  Decoder decoder;
  decoder.decode_to(encode_ppm(image), "a", 16, out.data());
  EXPECT_EQ(out, resize(image, 16).pixels);
  const Image square = gradient(30, 30);
  decoder.decode_to(encode_ppm(square), "a", 30, same.data());
  EXPECT_EQ(same, square.pixels);
}

}  // namespace
}  // namespace ftrain
