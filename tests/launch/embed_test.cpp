// ftrain embed: what it writes, of which images, and that it writes all or nothing.
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "ftrain/data/image.h"
#include "launch/program.h"

namespace launch_test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

struct Matrix {
  std::size_t rows = 0, width = 0;
  std::vector<float> values;
};

// A NumPy file of f32 [rows, width].
Matrix read_npy(const fs::path& path) {
  const std::string bytes = read_text(path);
  Matrix m;
  EXPECT_THAT(bytes, StartsWith("\x93NUMPY\x01"));
  if (bytes.size() < 128) return m;
  const std::string header = bytes.substr(10, 118);
  EXPECT_THAT(header, AllOf(HasSubstr("'descr': '<f4'"), HasSubstr("'fortran_order': False")));
  EXPECT_EQ(header.back(), '\n');
  const std::size_t shape = header.find("'shape': (");
  EXPECT_EQ(std::sscanf(header.c_str() + shape, "'shape': (%zu, %zu)", &m.rows, &m.width), 2);
  m.values.resize((bytes.size() - 128) / sizeof(float));
  std::memcpy(m.values.data(), bytes.data() + 128, m.values.size() * sizeof(float));
  EXPECT_EQ(m.values.size(), m.rows * m.width);
  return m;
}

std::vector<std::string> lines_in(const fs::path& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

class Embed : public Launch {
 protected:
  void SetUp() override {
    Launch::SetUp();
    ASSERT_EQ(ftrain(run("a", {"--set", "verify.batch=4"})).code, 0);
    for (int i = 0; i < 5; ++i) picture("faces/person" + std::to_string(i % 2), i);
  }

  // A picture of its own for each number.
  void picture(const std::string& folder, int number, bool mirrored = false) const {
    ftrain::Image image{32, 32, {}};
    for (int y = 0; y < 32; ++y) {
      for (int x = 0; x < 32; ++x) {
        const int at = mirrored ? 31 - x : x;
        for (int c = 0; c < 3; ++c) {
          image.pixels.push_back(static_cast<std::uint8_t>(at * (number + 3) + y * (c + 1)));
        }
      }
    }
    fs::create_directories(folder_ / folder);
    ftrain::write_png(folder_ / folder / (std::to_string(number) + ".png"), image);
  }
  Result embed(std::vector<std::string> words, rlim_t file_limit = 0) const {
    words.insert(words.begin(), {"embed", "runs/a"});
    return ftrain(words, file_limit);
  }
  std::vector<std::string> written() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string name = entry.path().filename().string();
      if (name.find("embeddings") != std::string::npos) names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
  }
};

TEST_F(Embed, FilesAndFoldersInOrder) {
  const Result result = embed({"faces/person1", "faces/person0/4.png", "faces", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report["images"], 8);
  EXPECT_EQ(report["rows"], 8);
  EXPECT_THAT(report["weights"].get<std::string>(), HasSubstr("runs/a/checkpoints/step-"));
  EXPECT_THAT(lines_in(folder_ / "embeddings.txt"),
              ElementsAre("faces/person1/1.png", "faces/person1/3.png", "faces/person0/4.png",
                          "faces/person0/0.png", "faces/person0/2.png", "faces/person0/4.png",
                          "faces/person1/1.png", "faces/person1/3.png"));
  const Matrix m = read_npy(folder_ / "embeddings.npy");
  ASSERT_EQ(m.rows, 8u);
  ASSERT_EQ(m.width, 16u);
  // The same image has the same embedding wherever it stands in whichever batch.
  const auto row = [&](std::size_t r) {
    return std::vector<float>(m.values.begin() + static_cast<std::ptrdiff_t>(r * 16),
                              m.values.begin() + static_cast<std::ptrdiff_t>((r + 1) * 16));
  };
  EXPECT_EQ(row(0), row(6));
  EXPECT_EQ(row(2), row(5));
  EXPECT_NE(row(0), row(1));
}

TEST_F(Embed, FlipIsTheSumWithTheMirrorImage) {
  picture("mirrored", 0, true);
  const auto values = [&](std::vector<std::string> words) {
    EXPECT_EQ(embed(std::move(words)).code, 0);
    return read_npy(folder_ / "embeddings.npy").values;
  };
  const auto plain = values({"faces/person0/0.png"});
  const auto mirrored = values({"mirrored/0.png"});
  const auto both = values({"faces/person0/0.png", "--flip"});
  const auto unit = values({"faces/person0/0.png", "--flip", "--normalize"});
  ASSERT_EQ(both.size(), 16u);
  ASSERT_EQ(plain.size() + mirrored.size() + unit.size(), 48u);
  double length = 0;
  for (std::size_t i = 0; i < both.size(); ++i) {
    EXPECT_EQ(both[i], plain[i] + mirrored[i]);
    length += static_cast<double>(both[i]) * static_cast<double>(both[i]);
  }
  EXPECT_NE(plain, mirrored);
  for (std::size_t i = 0; i < both.size(); ++i) {
    EXPECT_NEAR(unit[i], static_cast<double>(both[i]) / std::sqrt(length), 1e-6);
  }
}

TEST_F(Embed, SetsOfTheJob) {
  const Result result = embed({"portraits", "dataset", "--json", "--output", "embeddings-b.npy"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Matrix m = read_npy(folder_ / "embeddings-b.npy");
  EXPECT_EQ(m.rows, 40u + 48u);
  EXPECT_EQ(lines_in(folder_ / "embeddings-b.txt").size(), m.rows);
}

TEST_F(Embed, DamagedImagesAreCountedAndNamedAndNothingIsWritten) {
  write("faces/person1/bad.png", "no image");
  write("faces/person1/worse.jpg", "\xff\xd8\xff");
  const Result stopped = embed({"faces"});
  EXPECT_EQ(stopped.code, 3);
  EXPECT_THAT(stopped.err, AllOf(HasSubstr("2 of 7 images"), HasSubstr("person1/bad.png"),
                                 HasSubstr("person1/worse.jpg"), HasSubstr("--on-corrupt skip")));
  EXPECT_THAT(written(), testing::IsEmpty());
  const Result skipped = embed({"faces", "--on-corrupt", "skip", "--json"});
  ASSERT_EQ(skipped.code, 0) << skipped.err;
  EXPECT_THAT(skipped.err, HasSubstr("2 of 7 images"));
  EXPECT_EQ(json::parse(skipped.out)["damaged"], 2);
  EXPECT_EQ(read_npy(folder_ / "embeddings.npy").rows, 5u);
  EXPECT_THAT(lines_in(folder_ / "embeddings.txt"), Not(testing::Contains(HasSubstr("bad"))));
}

TEST_F(Embed, SlipsAndFailuresLeaveNothingBehind) {
  EXPECT_THAT(embed({}).err, HasSubstr("IMAGES is missing"));
  const Result missing = embed({"faces/persn1"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_THAT(missing.err, AllOf(HasSubstr("person1"), HasSubstr("portraits")));
  EXPECT_EQ(embed({"faces", "--output", "embeddings.csv"}).code, 2);
  EXPECT_EQ(embed({"faces", "--output", "nowhere/embeddings.npy"}).code, 3);
  EXPECT_EQ(embed({"faces", "--on-corrupt", "ignore"}).code, 2);
  EXPECT_EQ(embed({"faces", "--repeat", "0"}).code, 2);
  EXPECT_EQ(embed({"faces", "--checkpoint", "best", "--weights", "w.safetensors"}).code, 2);
  EXPECT_EQ(ftrain({"embed", "faces", "faces"}).code, 3);     // no run folder
  EXPECT_EQ(ftrain({"embed", "job.toml", "faces"}).code, 3);  // not trained
  EXPECT_EQ(embed({"dataset", "--json"}, 1024).code, 3) << "a full disk";
  EXPECT_THAT(written(), testing::IsEmpty());
}

TEST_F(Embed, MeasuresTheForwardPassAlone) {
  const Result alone = embed({"--repeat", "3", "--json"});
  ASSERT_EQ(alone.code, 0) << alone.err;
  const json forward = json::parse(alone.out)["forward"];
  EXPECT_EQ(forward["batch"], 4);
  EXPECT_EQ(forward["repeat"], 3);
  EXPECT_GT(forward["images_per_second"].get<double>(), 0);
  EXPECT_GE(forward["seconds"].get<double>(), forward["fastest_seconds"].get<double>());
  EXPECT_THAT(written(), testing::IsEmpty());
  const json untrained = json::parse(
      ftrain({"embed", "job.toml", "--repeat", "1", "--json", "--set", "run.folder=runs/b"}).out);
  EXPECT_EQ(untrained["weights"], "untrained");
}

}  // namespace
}  // namespace launch_test
