#include <gmock/gmock.h>

#include "dataset_fixture.h"
#include "ftrain/base/error.h"
#include "shared_data.h"

namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

const ftrain::Image tiny{2, 1, {1, 2, 3, 4, 5, 6}};

TEST(Folder, SortedNamesAreLabels) {
  const TemporaryFolder folder;
  const auto ppm = ftrain::encode_ppm(tiny);
  folder.write("zoe/b.ppm", ppm);
  folder.write("zoe/a.PPM", ppm);
  folder.write("adam/1.jpg", ftrain::encode_jpeg(tiny, 90));
  folder.write("adam/notes.txt", {1});
  folder.write("adam/.hidden.ppm", {1});
  folder.write(".git/x.ppm", {1});
  folder.write("readme.md", {1});
  const auto dataset = open_dataset("folder", path_key(folder.path()));
  ASSERT_EQ(dataset->size(), 3);
  EXPECT_EQ(dataset->classes(), 2);
  const char* const names[] = {"adam/1.jpg", "zoe/a.PPM", "zoe/b.ppm"};
  const std::int64_t labels[] = {0, 1, 1};
  ftrain::Sample sample;
  ftrain::Decoder decoder;
  ftrain::Image image;
  for (std::int64_t i = 0; i < 3; ++i) {
    dataset->read(i, sample);
    EXPECT_EQ(sample.label, labels[i]);
    EXPECT_THAT(dataset->describe_sample(i), EndsWith(names[i]));
    decoder.decode(sample.bytes, dataset->describe_sample(i), image);
    EXPECT_EQ(image.width, 2);
  }
  EXPECT_EQ(image.pixels, tiny.pixels);
}

TEST(Folder, SaysWhatIsMissing) {
  const TemporaryFolder folder;
  EXPECT_THAT(complaint<ftrain::DataError>("folder", path_key(folder.path())),
              HasSubstr("holds no people"));
  const auto file = folder.write("faces/loose.jpg", {1});
  EXPECT_THAT(complaint<ftrain::DataError>("folder", path_key(folder.path() / "faces")),
              HasSubstr("images directly in it have no label"));
  EXPECT_THAT(complaint<ftrain::DataError>("folder", path_key(folder.path() / "fases")),
              HasSubstr("Did you mean 'faces'?"));
  EXPECT_THAT(complaint<ftrain::DataError>("folder", path_key(file)), HasSubstr("is no folder"));
  std::filesystem::create_directory(folder.path() / "faces/nobody");
  EXPECT_THAT(complaint<ftrain::DataError>("folder", path_key(folder.path() / "faces")),
              HasSubstr("nobody: the folder holds no image"));
}

TEST(Folder, AFileThatIsGoneIsNamed) {
  const TemporaryFolder folder;
  const auto file = folder.write("a/1.ppm", ftrain::encode_ppm(tiny));
  const auto dataset = open_dataset("folder", path_key(folder.path()));
  std::filesystem::remove(file);
  ftrain::Sample sample;
  EXPECT_THROW(dataset->read(0, sample), ftrain::DataError);
}

TEST(Folder, GreyPngOfOthers) {
  const auto data = shared_data("att");
  FTRAIN_SKIP_WITHOUT(data);
  const auto dataset = open_dataset("folder", path_key(data / "train"));
  EXPECT_EQ(dataset->size(), 300);
  EXPECT_EQ(dataset->classes(), 30);
  ftrain::Sample sample;
  ftrain::Decoder decoder;
  ftrain::Image image;
  for (std::int64_t i = 0; i < dataset->size(); i += 13) {
    dataset->read(i, sample);
    EXPECT_EQ(sample.label, i / 10);
    decoder.decode(sample.bytes, dataset->describe_sample(i), image);
    EXPECT_EQ(image.width, 92);
    EXPECT_EQ(image.height, 112);
    EXPECT_EQ(image.pixels[0], image.pixels[2]);
  }
}

}  // namespace
