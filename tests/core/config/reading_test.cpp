// Reading a table strictly: types, rules, unknown and missing keys, and their messages.
#include <gmock/gmock.h>

#include <filesystem>

#include "ftrain/base/error.h"
#include "ftrain/config/table.h"

namespace ftrain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Head : Configurable {
  double margin = 0.5, scale = 64;
  std::int64_t depth = 50;
  std::string tail = "E";
  bool flip = true;
  std::vector<std::int64_t> at = {1};
  std::vector<double> factors;
  std::vector<std::string> sets;
  std::optional<double> clip;
  std::optional<std::int64_t> classes;
  std::variant<std::int64_t, std::string> batch_norm = std::string("rank");

  void configure(Keys& keys) override {
    keys.bind("margin", margin, "the margin", between(0, 1));
    keys.bind("scale", scale, "the scale", above(0));
    keys.bind("depth", depth, "layers", one_of({18, 34, 50, 100}));
    keys.bind("fc", tail, "the tail", one_of({"E", "FC", "GDC"}));
    keys.bind("flip", flip, "mirror");
    keys.bind("at", at, "steps");
    keys.bind("factors", factors, "factors");
    keys.bind("sets", sets, "names");
    keys.bind("clip", clip, "norm", above(0));
    keys.bind("classes", classes, "count", at_least(1));
    keys.bind_either("batch_norm", batch_norm, "group",
                     {"\"rank\", \"global\" or a number above 0", [](const Setting& s) {
                        const auto* n = std::get_if<std::int64_t>(&s);
                        if (n) return *n > 0;
                        const auto& word = std::get<std::string>(s);
                        return word == "rank" || word == "global";
                      }});
    keys.expect(at.size() >= factors.size(), "factors", "there must be a step for every factor");
  }
};

Head read(std::string_view text, const std::vector<std::string>& sets = {}) {
  const Job job = Job::parse(text, "job.toml", sets);
  Head head;
  job.root().table("head").read(head, {"plugin"});
  return head;
}

std::string error_of(std::string_view text, const std::vector<std::string>& sets = {}) {
  try {
    read(text, sets);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Reading, TakesEveryType) {
  const Head head = read(R"([head]
plugin = "x"
margin = 0.25
scale = 32            # a whole number where a number is wanted
depth = 100
fc = "GDC"
flip = false
at = [10, 20]
factors = [1, 0.5]
sets = ["a", "b"]
clip = 5.0
classes = 7
batch_norm = 8
)");
  EXPECT_EQ(head.margin, 0.25);
  EXPECT_EQ(head.scale, 32);
  EXPECT_EQ(head.depth, 100);
  EXPECT_EQ(head.tail, "GDC");
  EXPECT_FALSE(head.flip);
  EXPECT_THAT(head.at, ElementsAre(10, 20));
  EXPECT_THAT(head.factors, ElementsAre(1, 0.5));
  EXPECT_THAT(head.sets, ElementsAre("a", "b"));
  EXPECT_EQ(head.clip, 5.0);
  EXPECT_EQ(head.classes, 7);
  EXPECT_EQ(std::get<std::int64_t>(head.batch_norm), 8);
}

TEST(Reading, KeepsDefaultsOfAbsentKeysAndTables) {
  for (const char* text : {"", "[head]"}) {
    const Head head = read(text);
    EXPECT_EQ(head.margin, 0.5);
    EXPECT_THAT(head.at, ElementsAre(1));
    EXPECT_FALSE(head.clip.has_value());
    EXPECT_EQ(std::get<std::string>(head.batch_norm), "rank");
  }
  Head head;
  Table().read(head);
  Table::empty("head").read(head);
  EXPECT_EQ(head.scale, 64);
}

TEST(Reading, RefusesAnotherType) {
  EXPECT_EQ(error_of("[head]\n\nmargin = \"half\"\n"),
            "job.toml:3:10: [head] margin must be a number, got the string \"half\".");
  EXPECT_THAT(error_of("[head]\ndepth = 50.0\n"),
              HasSubstr("job.toml:2:9: [head] depth must be a whole number, got the number 50.0."));
  EXPECT_THAT(error_of("[head]\nfc = 1\n"), HasSubstr("must be a string, got the whole number 1."));
  EXPECT_THAT(error_of("[head]\nflip = 1\n"), HasSubstr("must be a boolean"));
  EXPECT_THAT(error_of("[head]\nfc = 1979-05-27\n"), HasSubstr("got the date 1979-05-27."));
  EXPECT_THAT(error_of("[head]\nat = 3\n"), HasSubstr("must be a list of whole numbers"));
  EXPECT_THAT(
      error_of("[head]\nsets = [\"a\", 2]\n"),
      HasSubstr("job.toml:2:14: [head] sets must be a list of strings, got the whole number "
                "2 as item 2."));
  EXPECT_THAT(error_of("[head.margin]\nx = 1"), HasSubstr("must be a number, got a table"));
  EXPECT_THAT(error_of("[head]\nbatch_norm = 1.5"), HasSubstr("must be a whole number or string"));
  EXPECT_THAT(error_of("head = 3"), HasSubstr("job.toml:1:1: head must be a table, got the whole "
                                              "number 3. Write [head]"));
}

TEST(Reading, RefusesBrokenRules) {
  EXPECT_EQ(error_of("[head]\nmargin = 1.5\n"),
            "job.toml:2:10: [head] margin must be between 0 and 1, got 1.5.");
  EXPECT_THAT(error_of("[head]\nmargin = nan\n"), HasSubstr("between 0 and 1, got nan"));
  EXPECT_THAT(error_of("[head]\nscale = 0\n"), HasSubstr("must be above 0, got 0.0"));
  EXPECT_THAT(error_of("[head]\nclasses = 0\n"), HasSubstr("must be at least 1, got 0."));
  EXPECT_THAT(error_of("[head]\ndepth = 51\n"), HasSubstr("one of 18, 34, 50, 100, got 51."));
  EXPECT_THAT(error_of("[head]\nfc = \"GCD\"\n"),
              HasSubstr("one of E, FC, GDC, got \"GCD\". Did you mean 'GDC'?"));
  EXPECT_THAT(error_of("[head]\nbatch_norm = \"world\"\n"), HasSubstr("\"rank\", \"global\""));
}

TEST(Reading, ChecksRulesBetweenKeysAtTheKeysPlace) {
  EXPECT_EQ(error_of("[head]\nat = [1]\nfactors = [1, 2]\n"),
            "job.toml:3:1: [head] factors: there must be a step for every factor");
}

TEST(Reading, RefusesUnknownKeysWithPlaceAndNearName) {
  const std::string error = error_of("[head]\nplugin = \"x\"\nmargn = 0.5\n");
  EXPECT_THAT(error, HasSubstr("job.toml:3:1: unknown key 'margn' in [head]. Did you mean "
                               "'margin'? Known keys: margin, scale, depth, fc,"));
  EXPECT_THAT(error, HasSubstr("batch_norm and plugin."));
  EXPECT_THAT(error_of("[head]\n[head.sub]\nx = 1"), HasSubstr("job.toml:2:"));
  EXPECT_THAT(error_of("", {"head.margn=1"}),
              HasSubstr("--set head.margn: unknown key 'margn' in [head]."));
}

struct Needs : Configurable {
  std::filesystem::path path;
  std::string name;
  void configure(Keys& keys) override {
    keys.require("path", path, "where the records are");
    keys.require("name", name, "what to call it");
  }
};

TEST(Reading, AsksForRequiredKeysAtTheTablesPlace) {
  const auto error = [](const char* text) -> std::string {
    const Job job = Job::parse(text, "job.toml");
    Needs needs;
    try {
      job.root().table("dataset").read(needs);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error("seed = 1\n[dataset]\nname = \"x\"\n"),
            "job.toml:2:1: [dataset] path is missing: where the records are.");
  EXPECT_EQ(error("seed = 1\n"), "job.toml: [dataset] path is missing: where the records are.");
  EXPECT_THAT(error("[dataset]\npaht = \"x\"\n"), HasSubstr("Is 'paht' a slip for it?"));
  EXPECT_THAT(error("[dataset]\npath = \"x\"\n"), HasSubstr("name is missing"));
}

TEST(Reading, DescribesWithoutReading) {
  Head head;
  const auto docs = describe(head);
  ASSERT_EQ(docs.size(), 11u);
  EXPECT_EQ(docs[0].name, "margin");
  EXPECT_EQ(docs[0].type, "number");
  EXPECT_EQ(docs[0].standard, "0.5");
  EXPECT_EQ(docs[0].rule, "between 0 and 1");
  EXPECT_EQ(docs[0].doc, "the margin");
  EXPECT_EQ(docs[3].standard, "\"E\"");
  EXPECT_EQ(docs[8].name, "clip");
  EXPECT_EQ(docs[8].standard, "");
  Needs needs;
  EXPECT_TRUE(describe(needs)[0].required);
  EXPECT_EQ(describe(needs)[0].type, "path");
}

TEST(Tables, AnswerWhatTheyHold) {
  const Job job =
      Job::parse("seed = 1\n[head]\nplugin = \"x\"\n[verify.portraits]\npairs = 2\n", "job.toml");
  EXPECT_THAT(job.root().keys(), ElementsAre("seed", "head", "verify"));
  EXPECT_TRUE(job.root().has("head"));
  EXPECT_FALSE(job.root().has("run"));
  EXPECT_EQ(job.root().table("head").text("plugin"), "x");
  EXPECT_EQ(job.root().table("device").text("plugin", "auto"), "auto");
  EXPECT_FALSE(job.root().has("device"));
  EXPECT_EQ(job.root().table("verify").table("portraits").name(), "verify.portraits");
  EXPECT_EQ(job.root().table("head").place("plugin").text(), "job.toml:3:1");
  EXPECT_THROW(job.root().text("seed"), ConfigError);
  EXPECT_THROW(job.root().table("device").text("plugin"), ConfigError);
}

}  // namespace
}  // namespace ftrain
