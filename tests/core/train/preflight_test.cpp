// Ranks that differ in program, job, data or clock are named before the first step.
#include "core/train/preflight.h"

#include <gmock/gmock.h>

#include <functional>
#include <mutex>
#include <thread>

#include "ftrain/base/error.h"
#include "ftrain/ops.h"

namespace ftrain {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

RankFacts facts(const std::string& name) {
  RankFacts facts;
  facts.name = name;
  facts.version = "1.0";
  facts.build = "abi1 gcc12";
  facts.libraries = {{"cpu.so", 1}, {"iresnet.so", 2}};
  facts.job = "seed = 1\n[head]\nplugin = \"arcface\"\nmargin = 0.5\n";
  facts.data = 0x12ab;
  facts.clock = 1000;
  return facts;
}

std::vector<RankFacts> ranks(int count) {
  std::vector<RankFacts> all;
  for (int r = 0; r < count; ++r) all.push_back(facts("rank " + std::to_string(r) + " on a"));
  return all;
}

void expect_nothing(const Disagreement& found) {
  EXPECT_EQ(found.programs, "");
  EXPECT_EQ(found.jobs, "");
  EXPECT_EQ(found.data, "");
  EXPECT_EQ(found.clocks, "");
}

TEST(CompareRanks, EqualOnesPass) {
  auto all = ranks(4);
  all[2].clock += 4;  // nobody's clock is right to the second
  expect_nothing(compare_ranks(all));
  expect_nothing(compare_ranks(ranks(1)));
}

TEST(CompareRanks, NamesAnotherDataSet) {
  auto all = ranks(4);
  all[3].data = 0x34cd;
  const Disagreement found = compare_ranks(all);
  EXPECT_THAT(found.data, StartsWith("rank 3 on a has another data set (fingerprint "
                                     "00000000000034cd; 3 ranks: 00000000000012ab). Copy"));
  EXPECT_EQ(found.programs + found.jobs + found.clocks, "");
}

TEST(CompareRanks, NamesAnotherProgram) {
  auto all = ranks(4);
  all[0].version = "2.0";
  all[1].build = "abi1 gcc13";
  all[2].libraries["iresnet.so"] = 3;
  all[3].libraries.erase("cpu.so");  // not loaded is not another one
  EXPECT_THAT(compare_ranks(all).programs,
              AllOf(HasSubstr("rank 0 on a has another version of ftrain (2.0; 3 ranks: 1.0). "),
                    HasSubstr("rank 1 on a has another build of ftrain (abi1 gcc13; 3 ranks:"),
                    HasSubstr("rank 2 on a has another plugin iresnet.so (checksum"),
                    Not(HasSubstr("cpu.so"))));
}

TEST(CompareRanks, NamesTheKeysOfAnotherJob) {
  auto all = ranks(3);
  all[1].job = "seed = 1\n[head]\nplugin = \"arcface\"\nmargin = 0.4\n[optimizer]\nclip = 5.0\n";
  EXPECT_THAT(compare_ranks(all).jobs,
              StartsWith("rank 1 on a has another job than 2 ranks: head.margin = 0.4 instead of "
                         "0.5 and optimizer.clip = 5.0 instead of nothing. Start all ranks"));
  all[1].job = "seed = 1\na = 1\nb = 1\nc = 1\nd = 1\n[head]\nplugin = \"arcface\"\nmargin = 0.5\n";
  EXPECT_THAT(compare_ranks(all).jobs, HasSubstr("c = 1 instead of nothing and 1 more. Start"));
}

TEST(CompareRanks, TheMajorityIsRightAndRankZeroInADraw) {
  auto all = ranks(4);
  all[0].data = all[1].data = 7;
  EXPECT_THAT(compare_ranks(all).data,
              StartsWith("rank 2 on a and rank 3 on a have another data set"));
  all[2].data = all[3].data;
  all[1].data = all[2].data;
  EXPECT_THAT(compare_ranks(all).data, StartsWith("rank 0 on a has another data set"));
  auto two = ranks(2);
  two[0].data = 7;
  EXPECT_THAT(compare_ranks(two).data,
              StartsWith("rank 1 on a has another data set (fingerprint 00000000000012ab; rank 0 "
                         "on a: 0000000000000007)"));
}

TEST(CompareRanks, ManyOddOnesAreCounted) {
  auto all = ranks(20);
  for (std::size_t r = 10; r < 17; ++r) all[r].data = 7;
  EXPECT_THAT(compare_ranks(all).data,
              StartsWith("rank 10 on a, rank 11 on a, rank 12 on a, rank 13 on a and 3 more have "
                         "another data set"));
}

TEST(CompareRanks, WarnsOfClocks) {
  auto all = ranks(4);
  all[2].clock += 3600;
  all[3].clock -= 60;
  EXPECT_THAT(compare_ranks(all).clocks,
              StartsWith("the clocks of the ranks differ: rank 2 on a is 3600 s ahead of and rank "
                         "3 on a is 60 s behind rank 0 on a"));
  auto two = ranks(2);
  two[0].clock += 10;
  EXPECT_THAT(compare_ranks(two).clocks, HasSubstr("rank 1 on a is 10 s behind rank 0 on a"));
}

class Numbers final : public Dataset {
 public:
  Numbers(std::int64_t size, std::int64_t classes, std::uint8_t shift = 0)
      : size_(size), classes_(classes), shift_(shift) {}
  void open(std::uint64_t) override {}
  std::int64_t size() const override { return size_; }
  std::int64_t classes() const override { return classes_; }
  void read(std::int64_t index, Sample& sample) const override {
    ++reads;
    sample.label = index % classes_;
    sample.bytes.assign(10, static_cast<std::uint8_t>(index + shift_));
  }
  std::string describe_sample(std::int64_t index) const override { return std::to_string(index); }
  std::string summary() const override { return "numbers"; }
  mutable int reads = 0;

 private:
  std::int64_t size_, classes_;
  std::uint8_t shift_;
};

TEST(Fingerprint, FollowsSizesLabelsAndBytes) {
  const std::uint64_t whole = fingerprint(Numbers(1000, 10));
  EXPECT_EQ(whole, fingerprint(Numbers(1000, 10)));
  EXPECT_NE(whole, fingerprint(Numbers(1001, 10)));
  EXPECT_NE(whole, fingerprint(Numbers(1000, 11)));
  EXPECT_NE(whole, fingerprint(Numbers(1000, 10, 1)));
  EXPECT_NE(fingerprint(Numbers(1, 1)), fingerprint(Numbers(1, 1, 1)));
}

TEST(Fingerprint, ReadsFewSamples) {
  const Numbers large(1 << 30, 10), small(3, 3);
  static_cast<void>(fingerprint(large));
  static_cast<void>(fingerprint(small));
  EXPECT_EQ(large.reads, 64);
  EXPECT_EQ(small.reads, 3);
}

std::unique_ptr<Communicator> local(int rank, int size) {
  static std::mutex mutex;
  static Registry registry({FTRAIN_PLUGINS});
  std::unique_ptr<Communicator> made;
  {
    const std::lock_guard lock(mutex);
    made = registry.create<Communicator>("local", Table::empty("launch"));
  }
  RankPlace place;
  place.rank = rank;
  place.size = size;
  place.host = rank < 2 ? "a" : "b";
  made->connect(place);
  return made;
}

// What each rank threw: "DataError: text", "PeerError: text" or nothing.
std::vector<std::string> outcomes_of(int size, const std::function<void(Communicator&)>& body) {
  std::vector<std::string> outcomes(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      const auto communicator = local(rank, size);
      std::string& outcome = outcomes[static_cast<std::size_t>(rank)];
      try {
        body(*communicator);
      } catch (const PeerError& error) {
        outcome = std::string("PeerError: ") + error.what();
      } catch (const Error& error) {
        outcome = std::string(error.kind()) + ": " + error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

std::vector<std::string> check(int size, const std::function<std::string(int)>& job,
                               const std::function<Numbers(int)>& data) {
  return outcomes_of(size, [&](Communicator& communicator) {
    const int rank = communicator.rank();
    check_ranks_agree(communicator, Job::parse(job(rank)), Registry(), data(rank));
  });
}

std::string same_job(int) {
  return "seed = 1\n[head]\nmargin = 0.5\n";
}

Numbers same_data(int) {
  return {100, 10};
}

TEST(RanksAgree, EqualOnesPass) {
  EXPECT_THAT(check(3, same_job, same_data), testing::Each(IsEmpty()));
  EXPECT_THAT(check(1, same_job, same_data), testing::Each(IsEmpty()));
}

TEST(RanksAgree, TablesOfTheLaunchAndTheOrderOfKeysMayDiffer) {
  const auto job = [](int rank) {
    return rank == 1
               ? "[launch]\nprocesses = 3\n[head]\nb = 1\nmargin = 0.5\n[observers.jsonl]\nx = 1"
               : "[head]\nmargin = 0.5\nb = 1\n[plugins]\npath = [\"a\"]\n";
  };
  EXPECT_THAT(check(3, job, same_data), testing::Each(IsEmpty()));
}

TEST(RanksAgree, AnotherJobIsAConfigErrorOnRankZeroAlone) {
  const auto job = [](int rank) {
    return "seed = 1\n[head]\nmargin = 0." + std::to_string(rank == 2 ? 4 : 5);
  };
  const auto outcomes = check(3, job, same_data);
  const std::string text =
      "rank 2 on b has another job than 2 ranks: head.margin = 0.4 instead of 0.5";
  EXPECT_THAT(outcomes[0], StartsWith("ConfigError: " + text));
  EXPECT_THAT(outcomes[1], StartsWith("PeerError: " + text));
  EXPECT_THAT(outcomes[2], StartsWith("PeerError: " + text));
}

TEST(RanksAgree, AnotherDataSetIsADataErrorAndAllDifferencesAreSaid) {
  const auto data = [](int rank) { return Numbers(100, rank == 1 ? 11 : 10); };
  EXPECT_THAT(check(3, same_job, data)[0],
              StartsWith("DataError: rank 1 on a has another data set"));
  const auto job = [](int rank) { return "seed = " + std::to_string(rank == 2 ? 4 : 5); };
  EXPECT_THAT(check(3, job, data)[0],
              AllOf(StartsWith("ConfigError: rank 2 on b has another job"), HasSubstr("seed = 4"),
                    HasSubstr("rank 1 on a has another data set")));
}

TEST(Layouts, OfWhatIsExchangedMustAgree) {
  const auto outcomes = [](const std::string& others) {
    return outcomes_of(3, [&](Communicator& communicator) {
      Program step;
      step.graph = std::make_unique<Graph>();
      const Value weight = step.graph->state({.name = "w", .type = {DType::f32, {16, 16}}});
      step.graph->set_layout(weight, communicator.rank() == 1 ? others : "blocked16");
      ops::all_reduce_sum(weight, 3);
      check_layouts_agree(communicator, step, "CPU of rank " + std::to_string(communicator.rank()));
    });
  };
  EXPECT_THAT(outcomes("blocked16"), testing::Each(IsEmpty()));
  const auto found = outcomes("blocked8");
  EXPECT_THAT(found[0], AllOf(StartsWith("DeviceError: rank 1 (CPU of rank 1)"),
                              HasSubstr("rank 0 (CPU of rank 0)"), HasSubstr("isa")));
  EXPECT_THAT(found[1], StartsWith("PeerError: "));
  EXPECT_THAT(found[2], StartsWith("PeerError: "));
}

TEST(MeasureRanks, SaysALine) {
  std::vector<std::string> lines(3);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back(
        [&, rank] { lines[static_cast<std::size_t>(rank)] = measure_ranks(*local(rank, 3)); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(lines[0], MatchesRegex("ranks: 3 on 2 machines, all-reduce [0-9.]+ GB/s \\([0-9]+ "
                                     "MiB\\), [0-9]+ us \\(8 bytes\\)"));
  EXPECT_EQ(lines[1], lines[0]);
  EXPECT_EQ(measure_ranks(*local(0, 1)), "ranks: 1");
}

}  // namespace
}  // namespace ftrain
