// sample_classes: counts, one scan over the blocks' counts, and the rows in order.
#include "ftrain/ops/random.h"
#include "plugins/devices/cuda/ops/class_center.h"
#include "plugins/devices/cuda/ops/kernels/sample_classes.cuh"
#include "plugins/devices/cuda/runtime/launch.h"

namespace ftrain::cuda {
namespace {

struct SampleScratch {
  unsigned* own;
  ClassCount* counts;  // of each block, and of all

  SampleScratch(std::int64_t words, std::int64_t blocks, Scratch& scratch)
      : own(scratch.take<unsigned>(words)), counts(scratch.take<ClassCount>(blocks + 1)) {}
};

std::unique_ptr<Kernel> make_sampling(const Node& node, const KernelEnvironment& environment) {
  const Attributes& a = node.attributes;
  const ClassDraws draws{
      .key = mix64(static_cast<std::uint64_t>(a.integer("seed")), sample_purpose),
      .first_class = a.integer("first_class"),
      .classes = a.integer("local_classes"),
      .capacity = a.integer("capacity"),
      .rate = static_cast<float>(a.number("sample_rate"))};
  const std::int64_t words = (draws.numbers() + 31) / 32;
  const std::int64_t blocks = (draws.numbers() + ClassDraws::of_block - 1) / ClassDraws::of_block;
  Scratch counted;
  const SampleScratch unused(words, blocks, counted);
  const auto body = [=, batch = node.input(0).shape[0]](const Buffers& at, cudaStream_t stream) {
    constexpr unsigned threads = ClassDraws::threads;
    Scratch memory(at.scratch);
    const SampleScratch scratch(words, blocks, memory);
    const auto* const step = at.input<std::int64_t>(1);
    auto* const rows = at.output<std::int32_t>(0);
    const auto grid = [](std::int64_t count) {
      return Grid{.blocks = {ftrain::cuda::blocks_for(count, threads)}, .threads = threads};
    };
    const Grid drawing{.blocks = {static_cast<unsigned>(blocks)},
                       .threads = threads,
                       .shared = block_reduce_bytes<ClassCount>(threads)};
    if (words > 0) launch(clear_words, grid(words), stream, words, scratch.own);
    if (batch > 0) {
      launch(mark_own, grid(batch), stream, draws, batch, at.input<std::int64_t>(0), scratch.own);
    }
    if (blocks > 0)
      launch(count_classes, drawing, stream, draws, step, scratch.own, scratch.counts);
    launch(add_counts, Grid{.threads = threads, .shared = drawing.shared}, stream, blocks,
           scratch.counts);
    if (blocks > 0) {
      launch(write_classes, drawing, stream, draws, step, scratch.own, scratch.counts, blocks,
             rows);
    }
    if (draws.capacity > 0) {
      launch(write_unused, grid(draws.capacity), stream, draws, scratch.counts + blocks, rows);
    }
  };
  return kernel_of(environment, body, {.scratch = counted.bytes()});
}

}  // namespace

void add_class_sampling(KernelList& list) {
  list.add({"sample_classes", own_name, 10, nullptr, make_sampling});
}

}  // namespace ftrain::cuda
