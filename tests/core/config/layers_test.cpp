// Layers of a job: includes, merging, --set, a replaced plugin, and the resolved job.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class Layers : public testing::Test {
 protected:
  Layers() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Layers() override { fs::remove_all(folder_); }

  fs::path write(const std::string& name, std::string_view text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  static std::string error_of(const fs::path& file, const std::vector<std::string>& sets = {}) {
    try {
      Job::load(file, sets);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  }
  const fs::path folder_ =
      fs::path(testing::TempDir()) /
      (std::string("ftrain_") + testing::UnitTest::GetInstance()->current_test_info()->name());
};

struct ArcFace : Configurable {
  double margin = 0.5, scale = 64;
  bool easy = false;
  void configure(Keys& keys) override {
    keys.bind("margin", margin, "the margin");
    keys.bind("scale", scale, "the scale");
    keys.bind("easy", easy, "easy margin");
  }
};

struct CosFace : Configurable {
  double margin = 0.4, scale = 64;
  void configure(Keys& keys) override {
    keys.bind("margin", margin, "the margin");
    keys.bind("scale", scale, "the scale");
  }
};

struct Paths : Configurable {
  fs::path path, cache = "cache", none;
  std::vector<fs::path> sets;
  std::optional<fs::path> weights;
  void configure(Keys& keys) override {
    keys.bind("path", path, "records");
    keys.bind("cache", cache, "cache");
    keys.bind("none", none, "nothing by default");
    keys.bind("sets", sets, "sets");
    keys.bind("weights", weights, "weights");
  }
};

TEST_F(Layers, LaterFilesWinKeyByKey) {
  write("base/deep.toml", "name = \"deep\"\n[head]\nplugin = \"arcface\"\nmargin = 0.1\nscale = 1");
  write("base/mid.toml", "include = \"deep.toml\"\n[head]\nscale = 2\n");
  write("other.toml", "[head]\neasy = true\n");
  const Job job = Job::load(write("job.toml",
                                  "include = [\"base/mid.toml\", \"other.toml\"]\n"
                                  "name = \"mine\"\n"));
  EXPECT_EQ(job.root().text("name"), "mine");
  EXPECT_FALSE(job.root().has("include"));
  ArcFace head;
  job.root().table("head").read(head, {"plugin"});
  EXPECT_EQ(head.margin, 0.1);
  EXPECT_EQ(head.scale, 2);
  EXPECT_TRUE(head.easy);
  EXPECT_EQ(job.root().table("head").place("margin").text(),
            (folder_ / "base/deep.toml").string() + ":4:1");
}

TEST_F(Layers, IncludeFailuresNameThePlaceOfTheInclude) {
  const fs::path a = write("a.toml", "include = \"b.toml\"\n");
  const fs::path b = write("b.toml", "x = 1\ninclude = [\"a.toml\"]\n");
  EXPECT_EQ(error_of(a), b.string() + ":2:12: include runs in a circle: " + a.string() + " -> " +
                             b.string() + " -> " + a.string() + ".");
  const fs::path self = write("self.toml", "include = \"./self.toml\"");
  EXPECT_THAT(error_of(self), HasSubstr("runs in a circle"));
  const fs::path c = write("c.toml", "include = \"sef.toml\"\n");
  EXPECT_THAT(error_of(c), HasSubstr(c.string() + ":1:11: the job file '"));
  EXPECT_THAT(error_of(c), HasSubstr("No such file or directory. Did you mean 'self.toml'?"));
  EXPECT_THAT(error_of(write("d.toml", "include = 3")), HasSubstr("must be a file name"));
  EXPECT_THAT(error_of(folder_), HasSubstr("it is a folder"));
}

TEST_F(Layers, OneFileMayBeIncludedTwice) {
  write("part.toml", "seed = 1");
  write("a.toml", "include = \"part.toml\"");
  write("b.toml", "include = \"part.toml\"");
  const Job job = Job::load(write("job.toml", "include = [\"a.toml\", \"b.toml\"]"));
  EXPECT_THAT(job.root().keys(), ElementsAre("seed"));
}

TEST_F(Layers, SyntaxErrorsSayWhere) {
  const fs::path file = write("job.toml", "[head]\nmargin = = 3\n");
  EXPECT_THAT(error_of(file), HasSubstr(file.string() + ":2:10: no valid TOML: "));
  EXPECT_THAT(error_of(write("two.toml", "a = 1\na = 2\n")), HasSubstr("two.toml:2:"));
}

TEST_F(Layers, SetOverridesWithTomlValuesAndBareWords) {
  const fs::path file = write("job.toml", "[head]\nplugin = \"arcface\"\nmargin = 0.1\n");
  const Job job =
      Job::load(file, {"head.margin=0.3", "name=two words", "run.on=2024-01-01", "run.quoted=\"7\"",
                       "head.easy=true", "run.empty=\"\"", "run.formula=a=b"});
  ArcFace head;
  job.root().table("head").read(head, {"plugin"});
  EXPECT_EQ(head.margin, 0.3);
  EXPECT_TRUE(head.easy);
  EXPECT_EQ(job.root().text("name"), "two words");
  EXPECT_EQ(job.root().table("run").text("on"), "2024-01-01");
  EXPECT_EQ(job.root().table("run").text("quoted"), "7");
  EXPECT_EQ(job.root().table("run").text("empty"), "");
  EXPECT_EQ(job.root().table("run").text("formula"), "a=b");
  EXPECT_EQ(job.root().table("head").place("margin").text(), "--set head.margin");
  EXPECT_EQ(job.root().table("head").place().text(), file.string() + ":1:1");
}

TEST_F(Layers, BadSetsAreRefused) {
  const fs::path file = write("job.toml", "");
  for (const char* set : {"head.margin", "=1", "head..margin=1", "head.margin=", "he ad=1"}) {
    EXPECT_THAT(error_of(file, {set}), HasSubstr(std::string("--set ") + set + ": "));
  }
  EXPECT_THAT(error_of(file, {"a=[1, 2"}), HasSubstr("--set a: '[1, 2' is no valid TOML value"));
  EXPECT_THAT(error_of(file, {"include=x.toml"}),
              HasSubstr("include can only stand in a job file"));
  EXPECT_THAT(error_of(file, {"a=1", "a.b=1"}), HasSubstr("a is given as the whole number 1"));
}

TEST_F(Layers, TheLastOfTwoSetsWins) {
  EXPECT_EQ(Job::parse("", "job", {"name=a", "name=b"}).root().text("name"), "b");
}

TEST_F(Layers, AReplacedPluginForgetsWhatItDoesNotKnow) {
  const char* text = "[head]\nplugin = \"arcface\"\nmargin = 0.3\neasy = true\n";
  for (const auto& sets : {std::vector<std::string>{"head.plugin=cosface", "head.scale=32"},
                           std::vector<std::string>{"head.scale=32", "head.plugin=cosface"}}) {
    const Job job = Job::parse(text, "job", sets);
    CosFace head;
    job.root().table("head").read(head, {"plugin"});
    EXPECT_EQ(head.margin, 0.3);
    EXPECT_EQ(head.scale, 32);
    EXPECT_THAT(job.resolved(), Not(HasSubstr("easy")));
  }
}

TEST_F(Layers, AReplacedPluginStillRefusesWhatItsOwnLayerWrites) {
  const char* text = "[head]\nplugin = \"arcface\"\neasy = true\n";
  CosFace head;
  const Job same = Job::parse(text, "job", {"head.plugin=cosface", "head.easy=true"});
  EXPECT_THROW(same.root().table("head").read(head, {"plugin"}), ConfigError);
  const Job unchanged =
      Job::parse("[head]\nplugin = \"cosface\"\neasy = true\n", "job", {"head.plugin=cosface"});
  EXPECT_THROW(unchanged.root().table("head").read(head, {"plugin"}), ConfigError);
}

TEST_F(Layers, PathsAreRelativeToTheFileThatWroteThem) {
  write("base/part.toml", "[dataset]\npath = \"train.rec\"\nsets = [\"a.bin\", \"/abs/b.bin\"]\n");
  const Job job = Job::load(write("job.toml", "include = \"base/part.toml\"\n"),
                            {"dataset.weights=../w.safetensors"});
  Paths paths;
  job.root().table("dataset").read(paths);
  EXPECT_EQ(paths.path, folder_ / "base/train.rec");
  EXPECT_THAT(paths.sets, ElementsAre(folder_ / "base/a.bin", fs::path("/abs/b.bin")));
  EXPECT_EQ(paths.weights, (fs::current_path() / "../w.safetensors").lexically_normal());
  EXPECT_EQ(paths.cache, "cache");
  EXPECT_EQ(paths.none, "");
}

TEST_F(Layers, TheResolvedJobHoldsDefaultsAndAbsolutePathsAndReadsBackAlike) {
  write("part.toml", "[dataset]\npath = \"train.rec\"\n");
  const Job job = Job::load(
      write("job.toml",
            "include = \"part.toml\"\nname = \"a \\\"b\\\"\\n\"\n[head]\nmargin = 1\n"
            "plugin = \"arcface\"\n[verify.portraits]\npairs = [1, 2.5, \"x\", {a = 1}]\n"),
      {"head.scale=1e-7"});
  ArcFace head;
  Paths paths;
  job.root().table("head").text("plugin");
  job.root().table("head").read(head, {"plugin"});
  job.root().table("dataset").read(paths);
  job.root().table("device").text("plugin", "auto");
  job.root().table("never read");
  const std::string text = job.resolved();
  EXPECT_EQ(text, "name = \"a \\\"b\\\"\\n\"\n\n[dataset]\npath = \"" +
                      (folder_ / "train.rec").string() + "\"\ncache = \"" +
                      (fs::current_path() / "cache").string() +
                      "\"\nnone = \"\"\nsets = []\n\n[head]\nplugin = \"arcface\"\nmargin = 1.0\n"
                      "scale = 1e-07\neasy = false\n\n[verify.portraits]\n"
                      "pairs = [1, 2.5, \"x\", {a = 1}]\n\n[device]\nplugin = \"auto\"\n");

  const Job again = Job::parse(text, "/elsewhere/job.toml");
  ArcFace head_again;
  Paths paths_again;
  again.root().table("head").read(head_again, {"plugin"});
  again.root().table("dataset").read(paths_again);
  EXPECT_EQ(head_again.scale, 1e-7);
  EXPECT_EQ(paths_again.path, paths.path);
  EXPECT_EQ(paths_again.none, "");
  EXPECT_EQ(again.root().text("name"), "a \"b\"\n");
  EXPECT_EQ(again.resolved(), text);
}

}  // namespace
}  // namespace ftrain
