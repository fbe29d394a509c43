#include "plugins/devices/cpu/tune/measure.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>

namespace ftrain::cpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double near = 1.03;          // as good as equal: the run of a machine varies as much
constexpr double clearly = 1.05;       // what a coarse kernel must win by
constexpr double hopeless = 1.5;       // slower than the best by so much after a launch: out
constexpr double hopeless_cold = 2.0;  // ... after the first launch, which also warms up
constexpr double brief = 0.02;         // seconds that an interruption may take: so short a launch
constexpr int brief_rounds = 3;        // is tried again before it is out
constexpr double budget = 0.03;        // seconds a candidate, as far as the least rounds allow
constexpr int least_rounds = 3, most_rounds = 40;

// bf16 numbers in +-[0.5, 2): any two in a row make an f32 as harmless, any four an f64.
void fill(char* data, std::size_t bytes) {
  const std::size_t first = std::min<std::size_t>(bytes, std::size_t{1} << 20);
  std::uint32_t random = 12345;
  for (std::size_t i = 0; i + 2 <= first; i += 2) {
    random = random * 1664525u + 1013904223u;
    const std::uint32_t high = random >> 16;
    const auto bits = static_cast<std::uint16_t>((high & 0x8000u) | 0x3f00u | (high & 0xffu));
    std::memcpy(data + i, &bits, sizeof bits);
  }
  for (std::size_t done = first; done < bytes; done += first) {
    std::memcpy(data + done, data, std::min(first, bytes - done));
  }
}

std::size_t rounded(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

struct Runner {
  Timing timing;
  std::unique_ptr<Kernel> kernel;
};

double launch(Runner& runner) {
  const Clock::time_point start = Clock::now();
  runner.kernel->launch();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

bool Workbench::grow(Run& run, std::size_t bytes) {
  if (bytes <= run.bytes) return false;
  run.memory = {};  // first back, then anew
  run.bytes = 0;
  run.memory = Memory(bytes, "measuring kernels");
  run.bytes = bytes;
  return true;
}

char* Workbench::operands(std::size_t bytes) {
  if (grow(operands_, bytes)) fill(operands_.memory.data(), bytes);
  return operands_.memory.data();
}

char* Workbench::results(std::size_t bytes) {
  if (grow(results_, bytes)) std::memset(results_.memory.data(), 0, bytes);
  return results_.memory.data();
}

char* Workbench::scratch(std::size_t bytes) {
  if (grow(scratch_, bytes)) std::memset(scratch_.memory.data(), 0, bytes);
  return scratch_.memory.data();
}

std::size_t operand_bytes(const Node& node) {
  std::size_t bytes = 0;
  for (const Value& input : node.inputs) {
    if (input.valid()) bytes += rounded(input.type().bytes());
  }
  for (const TensorType& output : node.outputs) bytes += rounded(output.bytes());
  return bytes;
}

std::vector<Timing> measure(const Node& node, const std::vector<const KernelDef*>& candidates,
                            const KernelEnvironment& environment, Workbench& bench,
                            std::vector<std::pair<std::string, std::string>>& failed) {
  std::size_t operand_size = 0, result_size = 0, scratch_size = 64;
  for (const Value& input : node.inputs) {
    if (input.valid()) operand_size += rounded(input.type().bytes());
  }
  for (const TensorType& output : node.outputs) result_size += rounded(output.bytes());

  std::vector<Runner> runners;
  const auto attempt = [&](const KernelDef& def, const auto& action) {
    try {
      action();
      return true;
    } catch (const std::exception& error) {
      failed.emplace_back(def.name, error.what());
      return false;
    }
  };
  for (const KernelDef* def : candidates) {
    attempt(*def, [&] {
      Runner runner{{def, 0}, def->make(node, environment)};
      scratch_size = std::max(scratch_size, runner.kernel->scratch_bytes());
      runners.push_back(std::move(runner));
    });
  }
  char* const operands = bench.operands(operand_size);
  char* const results = bench.results(result_size);
  char* const scratch = bench.scratch(scratch_size);
  std::vector<void*> inputs, outputs;
  std::size_t at = 0;
  for (const Value& input : node.inputs) {
    inputs.push_back(input.valid() ? operands + at : nullptr);
    if (input.valid()) at += rounded(input.type().bytes());
  }
  at = 0;
  for (const TensorType& output : node.outputs) {
    outputs.push_back(results + at);
    at += rounded(output.bytes());
  }

  std::erase_if(runners, [&](Runner& runner) {
    return !attempt(*runner.timing.def, [&] {
      runner.kernel->bind(inputs, outputs, scratch);
      runner.timing.seconds = launch(runner);
    });
  });
  if (runners.empty()) return {};

  const auto best = [&] {
    return std::min_element(
               runners.begin(), runners.end(),
               [](const Runner& a, const Runner& b) { return a.timing.seconds < b.timing.seconds; })
        ->timing.seconds;
  };
  // In turns, so that what else the machine does meets all of them.
  std::vector<bool> out(runners.size(), false);
  const auto drop = [&](double factor, int rounds) {
    const double limit = factor * best();
    for (std::size_t r = 0; r < runners.size(); ++r) {
      const double seconds = runners[r].timing.seconds;
      if (seconds > limit && (seconds > brief || rounds >= brief_rounds)) out[r] = true;
    }
  };
  drop(hopeless_cold, 0);
  double spent = 0;
  for (int round = 0; round < most_rounds; ++round) {
    const auto left = static_cast<double>(std::count(out.begin(), out.end(), false));
    if (left < 2 && round > 0) break;  // one stands, and its time is that of a warm launch
    if (round >= least_rounds && spent > budget * left) break;
    for (std::size_t r = 0; r < runners.size(); ++r) {
      if (out[r]) continue;
      const double seconds = launch(runners[r]);
      spent += seconds;
      runners[r].timing.seconds = std::min(runners[r].timing.seconds, seconds);
    }
    drop(hopeless, round + 1);
  }

  std::vector<Timing> timings;
  for (const Runner& runner : runners) timings.push_back(runner.timing);
  return timings;
}

const KernelDef* winner(const std::vector<Timing>& timings) {
  const auto handicapped = [](const Timing& t) {
    return t.seconds * (t.def->coarse ? clearly : 1.0);
  };
  double best = handicapped(timings.front());
  for (const Timing& timing : timings) best = std::min(best, handicapped(timing));
  const KernelDef* taken = nullptr;
  for (const Timing& timing : timings) {
    if (handicapped(timing) > near * best) continue;
    const bool finer = taken != nullptr && taken->coarse && !timing.def->coarse;
    if (taken == nullptr || finer) taken = timing.def;
  }
  return taken;
}

}  // namespace ftrain::cpu
