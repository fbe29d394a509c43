#include "plugins/devices/cuda/cudnn/measure.h"

#include <algorithm>
#include <cstring>

#include "ftrain/base/error.h"
#include "plugins/devices/cuda/runtime/check.h"
#include "plugins/devices/cuda/runtime/memory.h"
#include "plugins/devices/cuda/runtime/stream.h"

namespace ftrain::cuda {
namespace {

constexpr double near = 1.02;        // as good as equal
constexpr double hopeless = 1.5;     // slower than the best by so much: not launched again
constexpr double batch_time = 2e-4;  // seconds that launches between two events should take
constexpr int rounds = 5;

std::size_t rounded(std::size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// Numbers of 16 bits in +-[0.5, 2) as bf16 and harmless as f16; any two in a row make such an f32.
// A GPU is faster on zeros.
void fill(char* data, std::size_t bytes, cudaStream_t stream) {
  std::vector<char> pattern(std::min<std::size_t>(bytes, std::size_t{1} << 20));
  std::uint32_t random = 12345;
  for (std::size_t i = 0; i + 2 <= pattern.size(); i += 2) {
    random = random * 1664525u + 1013904223u;
    const std::uint32_t high = random >> 16;
    const auto bits = static_cast<std::uint16_t>((high & 0x8000u) | 0x3f00u | (high & 0xffu));
    std::memcpy(pattern.data() + i, &bits, sizeof bits);
  }
  for (std::size_t done = 0; done < bytes; done += pattern.size()) {
    check(cudaMemcpyAsync(data + done, pattern.data(), std::min(pattern.size(), bytes - done),
                          cudaMemcpyHostToDevice, stream),
          "filling operands to measure with");
  }
  finish(stream, "filling operands to measure with");
}

// 0: there is none.
double best_of(const std::vector<double>& seconds) {
  double best = 0;
  for (const double s : seconds) best = s > 0 && (best == 0 || s < best) ? s : best;
  return best;
}

}  // namespace

std::vector<double> measure_plans(const ConvolutionProblem& problem,
                                  const std::vector<std::shared_ptr<const Plan>>& plans,
                                  cudnnHandle_t handle) {
  if (plans.empty()) return {};
  std::size_t workspace = 256;
  for (const auto& plan : plans) workspace = std::max(workspace, plan->workspace());
  const std::size_t x = rounded(problem.x.bytes()), w = rounded(problem.w.bytes()),
                    y = rounded(problem.y.bytes());
  DeviceMemory memory;
  try {
    memory = DeviceMemory(x + w + y + workspace, "measuring plans of cuDNN");
  } catch (const OutOfMemoryError&) {
    return {};
  }
  char* const begin = memory.data();
  const Stream stream;
  Event start(Event::Kind::timed), end(Event::Kind::timed);
  fill(begin, x + w + y, stream);
  const Descriptor pack = variant_pack(begin, begin + x, begin + x + w, begin + x + w + y);
  check_cudnn(cudnnSetStream(handle, stream), "take a stream");

  // Seconds a launch; 0: it failed.
  const auto time = [&](const Plan& plan, int launches) {
    start.record(stream);
    for (int i = 0; i < launches; ++i) {
      if (cudnnBackendExecute(handle, plan.get(), pack.get()) != CUDNN_STATUS_SUCCESS) return 0.0;
    }
    end.record(stream);
    end.wait("measuring " + plan.choice().text() + " for " + problem.name);
    return std::max(1e-9, end.seconds_since(start) / launches);
  };
  std::vector<double> seconds;
  for (const auto& plan : plans) {
    // The first launch also loads the plan's code.
    seconds.push_back(time(*plan, 1) > 0 ? time(*plan, 1) : 0);
  }
  // In turns, so that what else the GPU does meets all of them.
  for (int round = 0; round < rounds; ++round) {
    const double best = best_of(seconds);
    for (std::size_t i = 0; i < plans.size(); ++i) {
      if (seconds[i] == 0 || seconds[i] > hopeless * best) continue;
      const int launches = std::clamp(static_cast<int>(batch_time / seconds[i]), 1, 10);
      seconds[i] = std::min(seconds[i], time(*plans[i], launches));
    }
  }
  return seconds;
}

std::size_t fastest(const std::vector<std::shared_ptr<const Plan>>& plans,
                    const std::vector<double>& seconds) {
  const double best = best_of(seconds);
  std::size_t taken = plans.size();
  for (std::size_t i = 0; i < seconds.size(); ++i) {
    if (seconds[i] == 0 || seconds[i] > near * best) continue;
    if (taken == plans.size() || plans[i]->workspace() < plans[taken]->workspace()) taken = i;
  }
  return taken;
}

}  // namespace ftrain::cuda
