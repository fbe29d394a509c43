// Ranks on several machines: network namespaces stand for them, each with its own address and host
// name, joined by a switch; what crosses between ranks goes over TCP. Making them wants the
// privilege of the system's administrator; without it these tests skip.
#include <gmock/gmock.h>

#include <cstdlib>

#include "launch/processes.h"
#include "launch/program.h"
#include "tests/shared_data.h"

namespace launch_test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

bool shell(const std::string& command) {
  return std::system((command + " > /dev/null 2>&1").c_str()) == 0;
}

// Machines 1 to `count`, reached by agent(); gone with the object.
class Machines {
 public:
  Machines(const fs::path& folder, int count) : folder_(folder), count_(count) {
    made_ = shell("ip netns add " + space(0)) &&
            shell("ip -n " + space(0) + " link add switch type bridge") &&
            shell("ip -n " + space(0) + " link set switch up");
    for (int i = 1; i <= count_ && made_; ++i) {
      const std::string ns = space(i), port = "port" + std::to_string(i);
      made_ = shell("ip netns add " + ns) &&
              shell("ip -n " + ns + " link add eth0 type veth peer name " + port + " netns " +
                    space(0)) &&
              shell("ip -n " + space(0) + " link set " + port + " master switch up") &&
              shell("ip -n " + ns + " addr add " + address(i) + "/24 dev eth0") &&
              shell("ip -n " + ns + " link set lo up") &&
              shell("ip -n " + ns + " link set eth0 up");
    }
    // What ssh would be: HOST COMMAND..., run on that machine if it can be reached.
    std::ofstream(agent()) << "#!/bin/sh\nhost=$1; shift\nmachine=" << prefix() << "${host##*.}\n"
                           << "ip -n $machine link show eth0 | grep -q 'state UP' || exit 255\n"
                           << "exec ip netns exec $machine "
                           << "unshare --uts sh -c \"hostname machine${host##*.}; $*\"\n";
    fs::permissions(agent(), fs::perms::owner_all);
  }
  ~Machines() {
    for (int i = 0; i <= count_; ++i) {
      if (i > 0) kill(i);
      shell("ip netns del " + space(i));
    }
  }
  bool made() const { return made_; }
  std::string agent() const { return (folder_ / "agent").string(); }
  static std::string address(int i) { return "10.213.7." + std::to_string(i); }
  // Every process of the machine.
  void kill(int i) const { shell("ip netns pids " + space(i) + " | xargs -r kill -9"); }
  void unplug(int i) const { shell("ip -n " + space(i) + " link set eth0 down"); }
  // Words that start a program on machine 1.
  std::vector<std::string> on_first() const {
    return {"ip",     "netns",   "exec",
            space(1), "unshare", "--uts",
            "sh",     "-c",      "hostname machine1; exec \"$0\" \"$@\""};
  }

 private:
  static std::string prefix() { return "ft" + std::to_string(::getpid()) + "-"; }
  static std::string space(int i) { return prefix() + std::to_string(i); }
  fs::path folder_;
  int count_;
  bool made_ = false;
};

class Hosts : public Launch {
 protected:
  void SetUp() override {
    Launch::SetUp();
    data_ = shared_data("lfw");
  }
  // The recipe for faces of LFW, cut to a few steps.
  std::vector<std::string> recipe(const std::string& name,
                                  const std::vector<std::string>& sets) const {
    std::vector<std::string> words{"run", std::string(FTRAIN_SOURCE) + "/configs/lfw.toml"};
    const auto set = [&](const std::string& text) {
      words.emplace_back("--set");
      words.push_back(text);
    };
    set("run.folder=runs/" + name);
    set("run.epochs=0.02");  // 8 steps of 16 samples
    set("dataset.path=" + (data_ / "train.rec").string());
    set("dataset.batch=8");
    set("dataset.threads=1");
    set("device.autotune=false");
    set("device.threads=1");
    set("verify.sets=[]");
    set("launch.processes=2");
    for (const std::string& text : sets) set(text);
    return words;
  }
  static std::string hosts(int count) {
    std::string list;
    for (int i = 1; i <= count; ++i) {
      list += (i > 1 ? ",\"" : "\"") + Machines::address(i) + ":1\"";
    }
    return "launch.hosts=[" + list + "]";
  }
  fs::path data_;
};

TEST_F(Hosts, TrainOverTheNetworkAsOneProcessDoes) {
  FTRAIN_SKIP_WITHOUT(data_);
  if (!shell("command -v mpirun")) GTEST_SKIP() << "there is no mpirun";
  const Machines machines(folder_, 2);
  if (!machines.made()) GTEST_SKIP() << "network namespaces cannot be made here";
  const Result local = ftrain(recipe("local", {"launch.communicator=local"}));
  ASSERT_EQ(local.code, 0) << local.err;
  const Result result = Program(folder_,
                                recipe("hosts", {hosts(2), "launch.communicator=mpi",
                                                 "launch.agent=" + machines.agent()}),
                                0, machines.on_first())
                            .wait();
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("2 machines"));
  const auto expected = metrics("local"), steps = metrics("hosts");
  ASSERT_EQ(steps.size(), expected.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const double loss = expected[i].at("loss");
    EXPECT_NEAR(steps[i].at("loss").get<double>(), loss, 1e-4 * loss) << "step " << i + 1;
  }
}

TEST_F(Hosts, OneThatIsLostIsReplacedByASpareOne) {
  FTRAIN_SKIP_WITHOUT(data_);
  if (!shell("command -v mpirun")) GTEST_SKIP() << "there is no mpirun";
  const Machines machines(folder_, 3);
  if (!machines.made()) GTEST_SKIP() << "network namespaces cannot be made here";
  const std::vector<std::string> sets{hosts(3), "launch.communicator=mpi", "checkpoint.every=2",
                                      "launch.agent=" + machines.agent(), "launch.max_restarts=2"};
  const Result undisturbed = Program(folder_, recipe("whole", sets), 0, machines.on_first()).wait();
  ASSERT_EQ(undisturbed.code, 0) << undisturbed.err;

  Program program(folder_, recipe("parts", sets), 0, machines.on_first());
  ASSERT_TRUE(wait_for_lines(program, "parts", 3));
  machines.unplug(2);
  machines.kill(2);
  const Result result = program.wait();
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("restart 1 of 2"));
  EXPECT_THAT(result.err, HasSubstr(Machines::address(2)));
  EXPECT_EQ(metrics("parts"), metrics("whole"));
}

}  // namespace
}  // namespace launch_test
