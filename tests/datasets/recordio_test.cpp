#include <gmock/gmock.h>

#include <cstring>
#include <map>

#include "core/data/loader.h"
#include "dataset_fixture.h"
#include "ftrain/base/error.h"
#include "shared_data.h"

namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<std::uint8_t>;

template <class T>
void put(Bytes& bytes, T value) {
  std::uint8_t raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  bytes.insert(bytes.end(), raw, raw + sizeof(T));
}

constexpr std::uint32_t magic = 0xced7230a;

// A writer of .rec files, independent of the reader: splits payloads as dmlc's does.
struct Writer {
  Bytes file;
  std::string index;

  void part(std::uint32_t flag, const Bytes& bytes) {
    put(file, magic);
    put(file, flag << 29 | static_cast<std::uint32_t>(bytes.size()));
    file.insert(file.end(), bytes.begin(), bytes.end());
    while (file.size() % 4) file.push_back(0);
  }

  void record(int key, const Bytes& payload) {
    index += std::to_string(key) + "\t" + std::to_string(file.size()) + "\n";
    std::size_t begin = 0;
    bool split = false;
    for (std::size_t at = 0; at + 4 <= payload.size(); at += 4) {
      std::uint32_t word;
      std::memcpy(&word, payload.data() + at, 4);
      if (word != magic) continue;
      part(split ? 2 : 1, Bytes(payload.begin() + static_cast<long>(begin),
                                payload.begin() + static_cast<long>(at)));
      split = true;
      begin = at + 4;
    }
    part(split ? 3 : 0, Bytes(payload.begin() + static_cast<long>(begin), payload.end()));
  }

  void image(int key, std::uint32_t flag, float label, const std::vector<float>& labels,
             const Bytes& image) {
    Bytes payload;
    put(payload, flag);
    put(payload, label);
    put(payload, std::uint64_t{0});
    put(payload, std::uint64_t{0});
    for (const float one : labels) put(payload, one);
    payload.insert(payload.end(), image.begin(), image.end());
    record(key, payload);
  }

  std::filesystem::path save(const TemporaryFolder& folder, bool with_index = true) const {
    if (with_index) folder.write("train.idx", Bytes(index.begin(), index.end()));
    return folder.write("train.rec", file);
  }
};

Bytes bytes_of(const std::string& text) {
  return {text.begin(), text.end()};
}

std::vector<std::pair<std::int64_t, std::string>> contents(const ftrain::Dataset& dataset) {
  std::vector<std::pair<std::int64_t, std::string>> result;
  ftrain::Sample sample;
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    dataset.read(i, sample);
    result.emplace_back(sample.label, std::string(sample.bytes.begin(), sample.bytes.end()));
  }
  return result;
}

using Contents = std::vector<std::pair<std::int64_t, std::string>>;

// InsightFace's dialect: key 0 and the identity records are metadata, wherever they stand.
TEST(RecordIo, InsightFaceDialect) {
  Writer writer;
  writer.image(1, 2, 0, {0, 1}, bytes_of("first"));  // [class, aligned]
  writer.image(2, 0, 0, {}, bytes_of("second"));
  writer.image(3, 2, 0, {2, 0}, bytes_of("third!!"));
  writer.image(0, 2, 0, {4, 7}, {});
  for (int person = 0; person < 3; ++person)
    writer.image(4 + person, 2, 0, {1.0f + person, 2.0f + person}, {});
  const Contents expected = {{0, "first"}, {0, "second"}, {2, "third!!"}};
  for (const bool with_index : {true, false}) {
    const TemporaryFolder folder;
    const auto dataset = open_dataset("recordio", path_key(writer.save(folder, with_index)));
    EXPECT_EQ(dataset->size(), 3);
    EXPECT_EQ(dataset->classes(), 3);
    EXPECT_EQ(contents(*dataset), expected);
    EXPECT_THAT(dataset->describe_sample(2),
                HasSubstr(with_index ? "train.rec record 3" : "train.rec record 2"));
    EXPECT_THAT(dataset->summary(), HasSubstr("3 images of 3 classes, 4 metadata records"));
  }
}

TEST(RecordIo, TheIndexGivesTheOrder) {
  Writer writer;
  for (const int key : {4, 0, 2, 9})
    writer.image(key, 0, static_cast<float>(key), {}, bytes_of("image " + std::to_string(key)));
  const TemporaryFolder folder;
  writer.save(folder);
  const auto dataset = open_dataset("recordio", path_key(folder.path()));  // the folder will do
  EXPECT_EQ(contents(*dataset),
            (Contents{{0, "image 0"}, {2, "image 2"}, {4, "image 4"}, {9, "image 9"}}));
  EXPECT_EQ(dataset->classes(), 10);
  EXPECT_THAT(dataset->describe_sample(3), HasSubstr("record 9"));
}

TEST(RecordIo, SplitRecordsAreJoined) {
  Bytes image = bytes_of("1234");
  put(image, magic);  // a multiple of 4 into the payload: the record is split
  put(image, magic);
  image.push_back('x');
  put(image, magic);  // at no multiple of 4: it is not
  image.push_back('y');
  Bytes ending = bytes_of("abcd");
  put(ending, magic);  // the last part is empty
  Writer writer;
  writer.image(0, 0, 1, {}, image);
  writer.image(1, 0, 0, {}, ending);
  writer.image(2, 0, 2, {}, bytes_of("whole"));
  std::uint32_t word;
  std::memcpy(&word, writer.file.data() + 4, 4);
  ASSERT_EQ(word >> 29, 1u);
  for (const bool with_index : {true, false}) {
    const TemporaryFolder folder;
    const auto dataset = open_dataset("recordio", path_key(writer.save(folder, with_index)));
    EXPECT_EQ(contents(*dataset), (Contents{{1, std::string(image.begin(), image.end())},
                                            {0, std::string(ending.begin(), ending.end())},
                                            {2, "whole"}}));
  }
}

TEST(RecordIo, TruncationIsNamedWithOffsetAndRecord) {
  Writer writer;
  for (int key = 0; key < 3; ++key) writer.image(key, 0, 0, {}, Bytes(40, 7));
  // Each record has 8 + 24 + 40 bytes; the last one begins at 144.
  for (const std::size_t length : {std::size_t{200}, std::size_t{150}})
    for (const bool with_index : {true, false}) {
      Writer cut = writer;
      cut.file.resize(length);
      const TemporaryFolder folder;
      const std::string error =
          complaint<ftrain::DataError>("recordio", path_key(cut.save(folder, with_index)));
      EXPECT_THAT(error, HasSubstr("train.rec record 2 at offset 1"));
      EXPECT_THAT(error, HasSubstr("the file ends at offset " + std::to_string(length)));
    }
}

TEST(RecordIo, DamageIsNamedWithItsOffset) {
  Writer writer;
  for (int key = 0; key < 3; ++key) writer.image(key, 0, 0, {}, Bytes(40, 7));
  for (const bool with_index : {true, false}) {
    Writer damaged = writer;
    damaged.file[72] ^= 1;
    const TemporaryFolder folder;
    EXPECT_THAT(
        complaint<ftrain::DataError>("recordio", path_key(damaged.save(folder, with_index))),
        HasSubstr("train.rec record 1 at offset 72: a record begins with the bytes"));
    damaged.file[72] ^= 1;
    damaged.file[79] |= 3 << 5;  // a last part without a first one
    EXPECT_THAT(
        complaint<ftrain::DataError>("recordio", path_key(damaged.save(folder, with_index))),
        HasSubstr("record 1 at offset 72: the part flag 3 is out of place"));
  }
}

TEST(RecordIo, PayloadsTooShortForTheirHeader) {
  Writer writer;
  writer.record(0, Bytes(10, 0));
  const TemporaryFolder folder;
  EXPECT_THAT(complaint<ftrain::DataError>("recordio", path_key(writer.save(folder))),
              HasSubstr("record 0: a payload of 10 bytes"));
  Writer many;
  many.image(0, 1000000, 0, {1, 2}, {});
  EXPECT_THAT(complaint<ftrain::DataError>("recordio", path_key(many.save(folder))),
              HasSubstr("with 1000000 labels"));
}

TEST(RecordIo, LabelsMustBeWholeNumbersBelowClasses) {
  for (const float label : {-1.0f, 0.5f, 3e7f, std::nanf("")}) {
    Writer writer;
    writer.image(0, 0, 0, {}, bytes_of("good"));
    writer.image(1, 0, label, {}, bytes_of("bad"));
    const TemporaryFolder folder;
    EXPECT_THAT(complaint<ftrain::DataError>("recordio", path_key(writer.save(folder))),
                HasSubstr("record 1: a label is a whole number"));
  }
  Writer writer;
  writer.image(0, 0, 4, {}, bytes_of("good"));
  const TemporaryFolder folder;
  const std::string path = path_key(writer.save(folder));
  const std::string error = complaint<ftrain::DataError>("recordio", path + "classes = 4\n");
  EXPECT_THAT(error, HasSubstr("record 0: the label 4 is not below classes = 4"));
  EXPECT_THAT(error, HasSubstr("leave it out"));
  EXPECT_EQ(open_dataset("recordio", path + "classes = 9\n")->classes(), 9);
  EXPECT_EQ(open_dataset("recordio", path)->classes(), 5);
}

TEST(RecordIo, BadIndexFilesAreNamed) {
  Writer writer;
  for (int key = 0; key < 2; ++key) writer.image(key, 0, 0, {}, Bytes(40, 7));
  const std::map<std::string, std::string> cases = {
      {"0\t0\nnonsense\n", "train.idx:2: a line of an .idx file"},
      {"0\t0\n1\n", "train.idx:2: a line of an .idx file"},
      {"0\t0\n1\t36\n", "record 1 at offset 36: a record begins with"},
      {"0\t0\n1\t7200\n", "record 1 at offset 7200: the file ends"},
      {"0\t0\n0\t72\n", "has the key 0 twice"},
      {"", "holds no images"}};
  for (const auto& [index, error] : cases) {
    writer.index = index;
    const TemporaryFolder folder;
    EXPECT_THAT(complaint<ftrain::DataError>("recordio", path_key(writer.save(folder))),
                HasSubstr(error));
  }
}

TEST(RecordIo, MissingAndEmptyFiles) {
  const TemporaryFolder folder;
  folder.write("lfw/train.rec", {});
  EXPECT_THAT(complaint<ftrain::DataError>("recordio", path_key(folder.path() / "lfv/train.rec")),
              HasSubstr("Did you mean 'lfw'?"));
  EXPECT_THAT(complaint<ftrain::DataError>("recordio", path_key(folder.path() / "lfw/trian.rec")),
              HasSubstr("Did you mean 'train.rec'?"));
  EXPECT_THAT(complaint<ftrain::DataError>("recordio", path_key(folder.path() / "lfw")),
              HasSubstr("holds no images"));
  EXPECT_THAT(complaint<ftrain::ConfigError>("recordio", ""), HasSubstr("path"));
}

// A corrupt JPEG in the middle of a file, as the loader meets it.
TEST(RecordIo, ACorruptImageStopsOrIsSkipped) {
  auto jpeg = ftrain::encode_jpeg({8, 8, Bytes(8 * 8 * 3, 90)}, 90);
  Writer writer;
  for (int key = 1; key <= 8; ++key) {
    const auto length = static_cast<long>(key == 4 ? jpeg.size() - 8 : jpeg.size());
    writer.image(key, 0, static_cast<float>(key), {}, Bytes(jpeg.begin(), jpeg.begin() + length));
  }
  const TemporaryFolder folder;
  const auto dataset = open_dataset("recordio", path_key(writer.save(folder)));
  ftrain::LoaderOptions how;
  how.batch = 8;
  how.image_size = 8;
  how.threads = 2;
  how.shuffle = false;
  try {
    ftrain::Loader(*dataset, how).next();
    ADD_FAILURE() << "no error";
  } catch (const ftrain::DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("train.rec record 4: the JPEG image is damaged"));
  }
  how.on_corrupt = "skip";
  ftrain::Loader loader(*dataset, how);
  EXPECT_EQ(loader.next().labels, (std::vector<std::int64_t>{1, 2, 3, 5, 5, 6, 7, 8}));
  EXPECT_EQ(loader.skipped(), 1);
}

// A file that others wrote: 8 images, the keys in no order, no metadata.
TEST(RecordIo, AFileByIm2Rec) {
  const auto data = shared_data("formats");
  FTRAIN_SKIP_WITHOUT(data);
  const std::vector<std::int64_t> by_key = {0, 0, 0, 0, 1, 1, 1, 1},
                                  by_place = {0, 1, 1, 1, 0, 1, 0, 0};
  const TemporaryFolder folder;
  std::filesystem::copy_file(data / "train.rec", folder.path() / "bare.rec");
  const auto indexed = open_dataset("recordio", path_key(data / "train.rec"));
  const auto bare = open_dataset("recordio", path_key(folder.path() / "bare.rec"));
  ASSERT_EQ(indexed->size(), 8);
  ASSERT_EQ(bare->size(), 8);
  EXPECT_EQ(indexed->classes(), 2);
  EXPECT_EQ(bare->classes(), 2);
  ftrain::Decoder decoder;
  ftrain::Image image;
  ftrain::Sample sample;
  for (std::int64_t i = 0; i < 8; ++i) {
    indexed->read(i, sample);
    EXPECT_EQ(sample.label, by_key[static_cast<std::size_t>(i)]);
    decoder.decode(sample.bytes, indexed->describe_sample(i), image);
    EXPECT_GT(image.width, 50);
    bare->read(i, sample);
    EXPECT_EQ(sample.label, by_place[static_cast<std::size_t>(i)]);
  }
}

TEST(RecordIo, LabeledFacesInTheWild) {
  const auto data = shared_data("lfw");
  FTRAIN_SKIP_WITHOUT(data);
  const auto dataset = open_dataset("recordio", path_key(data));
  EXPECT_EQ(dataset->size(), 7037);
  EXPECT_EQ(dataset->classes(), 1334);
  ftrain::Decoder decoder;
  ftrain::Image image;
  ftrain::Sample sample;
  std::vector<bool> seen(1334);
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < dataset->size(); ++i) {
    dataset->read(i, sample);
    EXPECT_GE(sample.label, last);  // the file is sorted by person
    last = sample.label;
    seen[static_cast<std::size_t>(sample.label)] = true;
    if (i % 50 != 0) continue;
    decoder.decode(sample.bytes, dataset->describe_sample(i), image);
    EXPECT_EQ(image.width, 112);
    EXPECT_EQ(image.height, 112);
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 1334);
}

}  // namespace
