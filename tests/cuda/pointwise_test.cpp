// What the op table does not reach in the CUDA device's kernels: sizes of many packets, blocks and
// tables, other layouts on both sides of an op, every operand in 16 bits, scalars that are not
// finite.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "plugins/devices/cuda/device/layout.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "tests/cuda/standin/standin.h"
#include "tests/plugins/devices/cpu/kernel_run.h"
#include "tests/plugins/devices/cpu/lone_node.h"
#include "tests/plugins/devices/cpu/op_cases.h"

namespace ftrain::cuda {
namespace {

using cpu::BuiltCase;
using cpu::Bytes;
using cpu::CaseGraph;
using cpu::Interpreter;
using cpu::LoneNode;
using cpu::OpCase;
using cpu::Run;
using Outputs = std::vector<Value>;

// Row-major [N, C, H, W] to channels-last, or back.
Bytes rearranged(const TensorType& type, const void* from, bool to_layout) {
  Bytes made(type.bytes(), from);
  if (type.layout == row_major) return made;
  const auto channels = static_cast<std::size_t>(type.shape[1]);
  const auto positions = static_cast<std::size_t>(type.shape[2] * type.shape[3]);
  const std::size_t size = size_of(type.dtype);
  for (std::size_t i = 0; i < type.bytes() / size; ++i) {
    const std::size_t n = i / (channels * positions), c = i / positions % channels;
    const std::size_t lies = (n * positions + i % positions) * channels + c;
    std::memcpy(static_cast<char*>(made.data()) + (to_layout ? lies : i) * size,
                static_cast<const char*>(from) + (to_layout ? i : lies) * size, size);
  }
  return made;
}

std::vector<OpCase> rows() {
  return {
      {"prelu of planes by fours",
       [](CaseGraph& g) {
         return Outputs{ops::prelu(g.apart({5, 24, 8, 8}), g.real({24}))};
       }},
      {"prelu of odd planes",
       [](CaseGraph& g) {
         return Outputs{ops::prelu(g.apart({6, 40, 9, 7}), g.real({40}))};
       }},
      {"prelu of many rows",
       [](CaseGraph& g) {
         return Outputs{ops::prelu(g.apart({700, 40}), g.real({40}))};
       }},
      {"bias of many rows",
       [](CaseGraph& g) {
         return Outputs{ops::add_bias(g.real({700, 40}), g.real({40}))};
       }},
      {"relu of many blocks",
       [](CaseGraph& g) {
         return Outputs{ops::relu(g.apart({9, 2049}))};
       }},
      {"average pool",
       [](CaseGraph& g) {
         return Outputs{ops::global_average_pool(g.real({6, 40, 7, 7}))};
       }},
      {"average pool of planes by fours",
       [](CaseGraph& g) {
         return Outputs{ops::global_average_pool(g.real({6, 13, 4, 4}))};
       }},
      {"sums of many parts",
       [](CaseGraph& g) {
         ops::squared_norm({g.fixed({70000}), g.fixed({3}), g.fixed({32768})});
         return Outputs{ops::sum(g.real({40001}))};
       }},
      {"norm of many tensors",
       [](CaseGraph& g) {
         Outputs tensors;
         for (std::int64_t i = 0; i < 400; ++i) tensors.push_back(g.fixed({i % 7 + 1}));
         ops::squared_norm(tensors);
         return Outputs{};
       }},
      {"many scalars, of which one is not finite",
       [](CaseGraph& g) {
         for (const int bad : {-1, 3, 290}) {
           Outputs scalars;
           for (int i = 0; i < 300; ++i) scalars.push_back(g.scalar(i == bad ? NAN : 1));
           ops::all_finite(scalars);
         }
         return Outputs{};
       }},
      {"rows of packets",
       [](CaseGraph& g) {
         return Outputs{ops::normalize(g.real({9, 1048})).rows};
       }},
      {"rows of zeros",
       [](CaseGraph& g) {
         return Outputs{ops::normalize(g.fixed({3, 512}, 0, 0)).rows};
       }},
      {"dropout of images",
       [](CaseGraph& g) {
         return Outputs{ops::dropout(g.real({4, 16, 3, 5}), 0.4, g.integer(7), 99, 1000)};
       }},
      {"images to rows",
       [](CaseGraph& g) {
         return Outputs{ops::reshape(g.real({4, 40, 7, 7}), {4, 40 * 49})};
       }},
      {"images by fours",
       [](CaseGraph& g) {
         const Value image = g.integers({6, 5, 8, 3}, 0, 255, DType::u8);
         ops::image_normalize(image, g.integer(3), {.flip = 0.5, .seed = 5, .first_sample = 12});
         return Outputs{};
       }},
      {"casts",
       [](CaseGraph& g) {
         const Value x = g.fixed({300, 7}, -200, 200);
         for (const DType to : {DType::i32, DType::i64, DType::bf16, DType::f16}) {
           ops::cast(ops::cast(x, to), g.dtype);
         }
         ops::cast(ops::cast(ops::cast(x, DType::i64), DType::bf16), DType::i32);
         // Too large for f16: infinite.
         ops::cast(ops::scale(x, 1000), DType::f16);
         return Outputs{};
       }},
      {"rows of images",
       [](CaseGraph& g) {
         ops::slice_rows(g.fixed({9, 16, 3, 3}), 2, 3);
         ops::slice_rows(g.integers({9, 5}, 0, 99, DType::u8), 2, 3);
         return Outputs{};
       }},
  };
}

const KernelList& kernels() {
  static const KernelList list = [] {
    KernelList made;
    add_pointwise_kernels(made);
    add_reduction_kernels(made);
    return made;
  }();
  return list;
}

void check(const LoneNode& lone, const KernelDef& def, bool in_place) {
  static const Context context{{.stream = nullptr, .multiprocessors = 2}};
  KernelEnvironment environment;
  environment.device = &context;
  if (!def.refuse(lone.node(), environment).empty()) return;
  const auto kernel = def.make(lone.node(), environment);
  if (in_place) {
    if (kernel->overwrites() < 0) return;
    const auto& taken = lone.node().input(static_cast<std::size_t>(kernel->overwrites()));
    if (taken != lone.node().outputs[0]) return;
  }
  Run run(lone, def, environment, in_place, rearranged);
  std::vector<standin::Forbidden> around;
  run.each_buffer([&](const cpu::Guarded& buffer) {
    const auto* const begin = static_cast<const std::byte*>(buffer.data());
    around.emplace_back(begin - cpu::Guarded::margin, cpu::Guarded::margin);
    around.emplace_back(begin + buffer.size(), cpu::Guarded::margin);
  });
  run.launch();
  run.check(cpu::is_exact(def.op) ? 0 : 1e-5);
}

// Inputs row-major or channels-last, and outputs so, in every combination.
void check_layouts(LoneNode& lone, const KernelDef& def) {
  const std::size_t leaves = lone.leaves().size();
  for (const bool last_in : {false, true}) {
    for (const bool last_out : {false, true}) {
      const auto types = lone.types();
      for (std::size_t i = 0; i < types.size(); ++i) {
        const bool image = types[i]->shape.rank() == 4 && is_floating(types[i]->dtype);
        types[i]->layout = image && (i < leaves ? last_in : last_out) ? channels_last : row_major;
      }
      SCOPED_TRACE(std::string(def.op) + (last_in ? ", inputs channels-last" : "") +
                   (last_out ? ", outputs channels-last" : ""));
      check(lone, def, false);
      check(lone, def, true);
    }
  }
  for (TensorType* type : lone.types()) type->layout = row_major;
}

std::vector<std::size_t> tensors_of(const Node& node) {
  std::vector<std::size_t> floats;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const bool sums = node.op->name == "squared_norm" || node.op->name == "sum";
    if (node.input(i).dtype == DType::f32 && (sums || node.input(i).shape.rank() >= 2)) {
      floats.push_back(i);
    }
  }
  return floats;
}

class CudaPointwise : public testing::TestWithParam<OpCase> {};

TEST_P(CudaPointwise, AgreesWithThePlainKernels) {
  const BuiltCase built(GetParam(), DType::f32);
  Interpreter interpreter(built.leaves.graph);
  built.leaves.fill(interpreter);
  interpreter.run();
  int checked = 0;
  for (std::int32_t i = 0; i < built.leaves.graph.size(); ++i) {
    const Node& node = built.leaves.graph.node(i);
    if (node.op->leaf) continue;
    for (const KernelDef* def : kernels().of(node.op->name)) {
      LoneNode lone(node, interpreter);
      check_layouts(lone, *def);
      ++checked;
      if (const auto tensors = tensors_of(node); !tensors.empty()) {
        for (const DType dtype : {DType::bf16, DType::f16}) {
          SCOPED_TRACE(name_of(dtype));
          LoneNode narrow(node, interpreter, tensors, dtype);
          check_layouts(narrow, *def);
        }
      }
    }
  }
  EXPECT_GT(checked, 0);
}

INSTANTIATE_TEST_SUITE_P(Rows, CudaPointwise, testing::ValuesIn(rows()), cpu::test_name);

}  // namespace
}  // namespace ftrain::cuda
