// Makes a DeviceUpdate (ftrain/model/device_functions.h) out of an optimizer's formula. Its .cu is
//
//   #include "ftrain/optimizer/update_cuda.cuh"
//   template const void* ftrain::device_update<Formula>();
//
// Update::functor points to the formula (see ftrain/optimizer/update_formula.h). The step's scalars
// lie on the device, so each thread prepares its own elements' step: tens of operations for 16 or
// more elements.
//
// The kernels are bound by bytes: parameter, slots and gradient are read once, what changes is
// written once, 16 bytes at a time where the tensor allows it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "ftrain/cuda/launch.cuh"
#include "ftrain/model/device_functions.h"
#include "ftrain/ops/random.h"
#include "ftrain/optimizer/device_update.h"
#include "ftrain/optimizer/update_formula.h"

namespace ftrain::cuda {

// Where a tensor and its slots lie: elements from `at` on.
template <class Formula>
struct UpdatedRun {
  static constexpr int slots = Formula::slots;
  float* parameter;
  float* slot[slots > 0 ? slots : 1];
  const float* gradient;          // nullptr: 0 everywhere
  std::uint16_t* copy = nullptr;  // the parameter in 16 bits, written with it; nullptr: none

  __device__ bool is_aligned() const {
    auto all = reinterpret_cast<std::uintptr_t>(parameter) |
               reinterpret_cast<std::uintptr_t>(gradient) | reinterpret_cast<std::uintptr_t>(copy);
    for (int s = 0; s < slots; ++s) all |= reinterpret_cast<std::uintptr_t>(slot[s]);
    return all % 16 == 0;
  }
};

// The formula, prepared.
template <class Formula>
struct UpdateStep {
  typename Formula::template Step<float> step;
  bool half_copies = false;  // copies are f16, else bf16

  template <std::size_t... s>
  __device__ void element(float& weight, float* slots, float gradient,
                          std::index_sequence<s...>) const {
    step(weight, slots[s]..., gradient);
  }

  __device__ void one(const UpdatedRun<Formula>& run, std::int64_t i) const {
    constexpr int count = Formula::slots;
    float weight = run.parameter[i], slots[count > 0 ? count : 1];
    for (int s = 0; s < count; ++s) slots[s] = run.slot[s][i];
    element(weight, slots, run.gradient != nullptr ? run.gradient[i] : 0.0f,
            std::make_index_sequence<count>());
    run.parameter[i] = weight;
    if (run.copy != nullptr) run.copy[i] = rounded(weight);
    for (int s = 0; s < count; ++s) run.slot[s][i] = slots[s];
  }

  __device__ void four(const UpdatedRun<Formula>& run, std::int64_t i) const {
    constexpr int count = Formula::slots;
    float weights[4], gradients[4] = {}, slots[4][count > 0 ? count : 1];
    load(run.parameter + i, weights);
    if (run.gradient != nullptr) load(run.gradient + i, gradients);
    for (int s = 0; s < count; ++s) {
      float of_slot[4];
      load(run.slot[s] + i, of_slot);
      for (int k = 0; k < 4; ++k) slots[k][s] = of_slot[k];
    }
    for (int k = 0; k < 4; ++k) {
      element(weights[k], slots[k], gradients[k], std::make_index_sequence<count>());
    }
    store(run.parameter + i, weights);
    if (run.copy != nullptr) {
      *reinterpret_cast<uint2*>(run.copy + i) =
          make_uint2(pair(weights[0], weights[1]), pair(weights[2], weights[3]));
    }
    for (int s = 0; s < count; ++s) {
      float of_slot[4];
      for (int k = 0; k < 4; ++k) of_slot[k] = slots[k][s];
      store(run.slot[s] + i, of_slot);
    }
  }

  // Elements [first, last) by the threads `thread` of `threads`; first is a multiple of 4.
  __device__ void run(const UpdatedRun<Formula>& of, std::int64_t first, std::int64_t last,
                      int thread, int threads) const {
    const std::int64_t fours = of.is_aligned() ? (last - first) / 4 : 0;
    for (std::int64_t i = thread; i < fours; i += threads) four(of, first + 4 * i);
    for (std::int64_t i = first + 4 * fours + thread; i < last; i += threads) one(of, i);
  }

 private:
  // What a weight is to a convolution in 16 bits; too large for f16 is infinite.
  __device__ std::uint16_t rounded(float weight) const {
    return half_copies ? __half_as_ushort(__float2half_rn(weight))
                       : __bfloat16_as_ushort(__float2bfloat16_rn(weight));
  }
  __device__ std::uint32_t pair(float first, float second) const {
    return static_cast<std::uint32_t>(rounded(second)) << 16 | rounded(first);
  }
  static __device__ void load(const float* from, float (&to)[4]) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
  }
  static __device__ void store(float* to, const float (&from)[4]) {
    *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
  }
};

// What a launch is given: the formula, and where the step's scalars lie.
template <class Formula>
struct UpdateCall {
  Formula formula;
  DeviceUpdateScalars scalars;
  bool half_copies = false;

  // False: nothing is to be changed.
  __device__ bool is_on() const { return scalars.ok == nullptr || *scalars.ok != 0; }
  __device__ std::int64_t steps_before() const {
    return scalars.step != nullptr ? *scalars.step : 0;
  }
  // Of the update of that number.
  __device__ UpdateStep<Formula> prepare(std::int64_t number) const {
    UpdateScalars known;
    known.rate = static_cast<double>(*scalars.rate) * scalars.rate_factor;
    known.decay = scalars.decay;
    if (scalars.coefficient != nullptr) known.coefficient = *scalars.coefficient;
    known.step = number;
    return {formula.template prepare<float>(known), half_copies};
  }
  // Of a row, by the whole warp that has it. Counts the update where rows are counted.
  __device__ UpdateStep<Formula> prepare(const DeviceRows& rows, std::int64_t row) const {
    if (rows.row_steps == nullptr) return prepare(steps_before() + 1);
    const float number = rows.row_steps[row] + 1;
    __syncwarp();  // all have read it
    if (threadIdx.x % 32 == 0) rows.row_steps[row] = number;
    return prepare(static_cast<std::int64_t>(number));
  }
};

// Tensors of one launch, as many as its parameters hold; each has blocks for parts of its elements.
template <class Formula>
struct UpdateTable {
  static constexpr int most = 3072 / (36 + 8 * std::max(Formula::slots, 1));
  UpdatedRun<Formula> tensor[most];
  std::int64_t count[most];
  std::int32_t first_block[most + 1];
  int tensors = 0;
};
inline constexpr std::int64_t update_part = 8192;  // elements

template <class Formula>
__global__ void update_tensors(UpdateCall<Formula> call, UpdateTable<Formula> table) {
  if (!call.is_on()) return;
  const UpdateStep<Formula> step = call.prepare(call.steps_before() + 1);
  const int block = static_cast<int>(blockIdx.x);
  int low = 0, high = table.tensors;  // first_block[low] <= block < first_block[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.first_block[middle] <= block ? low : high) = middle;
  }
  const std::int64_t first = (block - table.first_block[low]) * update_part;
  const std::int64_t end = first + update_part, count = table.count[low];
  step.run(table.tensor[low], first, end < count ? end : count, static_cast<int>(threadIdx.x),
           static_cast<int>(blockDim.x));
}

// A warp has a row.
template <class Formula>
__global__ void update_rows(UpdateCall<Formula> call, UpdatedRun<Formula> tensor, DeviceRows rows) {
  const std::int64_t i =
      static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (i >= rows.count || !call.is_on()) return;
  const std::int64_t row = rows.rows != nullptr ? rows.rows[i] : rows.first + i;
  if (row < 0) return;
  const UpdateStep<Formula> step = call.prepare(rows, row);
  const std::int64_t first = (rows.packed ? i : row) * rows.width;
  tensor.parameter += first;
  for (int s = 0; s < Formula::slots; ++s) tensor.slot[s] += first;
  if (tensor.gradient != nullptr) tensor.gradient += i * rows.width;
  step.run(tensor, 0, rows.width, static_cast<int>(threadIdx.x % 32), 32);
}

// Parameter and slots in bf16, and the keys of their rounding (ftrain/ops/random.h).
template <class Formula>
struct Bf16Tensors {
  static constexpr int count = 1 + Formula::slots;
  std::uint16_t* tensor[count];
  std::uint64_t key[count];
  bool aligned;  // every row of all of them, and of the gradient, to 16 bytes
};

// A warp has a row, a thread the neighbours that share a draw. A draw is about 100 integer
// operations for 8 elements of a tensor, which is less time than their bytes take.
template <class Formula>
__global__ void update_bf16_rows(UpdateCall<Formula> call, Bf16Tensors<Formula> of,
                                 DeviceRows rows) {
  constexpr int each = RowRounding::each, tensors = Bf16Tensors<Formula>::count;
  const std::int64_t i =
      static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (i >= rows.count || !call.is_on()) return;
  const std::int64_t row = rows.rows != nullptr ? rows.rows[i] : rows.first + i;
  if (row < 0) return;
  const UpdateStep<Formula> step = call.prepare(rows, row);
  const std::int64_t first = (rows.packed ? i : row) * rows.width, number = call.steps_before();
  for (std::int64_t d = threadIdx.x % 32 * each; d < rows.width; d += 32 * each) {
    const std::int64_t left = rows.width - d;
    const int here = left < each ? static_cast<int>(left) : each;
    const bool whole = of.aligned && here == each;
    union Eight {
      uint4 all;
      std::uint16_t one[each];
    } stored[tensors] = {};
    float gradient[each] = {};
    for (int t = 0; t < tensors; ++t) {
      const std::uint16_t* const from = of.tensor[t] + first + d;
      if (whole) {
        stored[t].all = *reinterpret_cast<const uint4*>(from);
      } else {
        for (int k = 0; k < each; ++k) {
          if (k < here) stored[t].one[k] = from[k];
        }
      }
    }
    if (rows.gradient != nullptr) {
      const float* const from = rows.gradient + i * rows.width + d;
      if (whole) {
        const float4 low = *reinterpret_cast<const float4*>(from);
        const float4 high = *reinterpret_cast<const float4*>(from + 4);
        const float both[each] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        for (int k = 0; k < each; ++k) gradient[k] = both[k];
      } else {
        for (int k = 0; k < each; ++k) {
          if (k < here) gradient[k] = from[k];
        }
      }
    }
    RowRounding rounding[tensors];
    for (int t = 0; t < tensors; ++t) {
      rounding[t] = RowRounding::at(of.key[t], number, rows.first_class + row, rows.width, d);
    }
    for (int k = 0; k < each; ++k) {
      float values[tensors];
      for (int t = 0; t < tensors; ++t) {
        values[t] = __builtin_bit_cast(float, static_cast<std::uint32_t>(stored[t].one[k]) << 16);
      }
      step.element(values[0], values + 1, gradient[k], std::make_index_sequence<tensors - 1>());
      for (int t = 0; t < tensors; ++t) {
        stored[t].one[k] = bf16_bits(values[t], rounding[t].number(k));
      }
    }
    for (int t = 0; t < tensors; ++t) {
      std::uint16_t* const to = of.tensor[t] + first + d;
      if (whole) {
        *reinterpret_cast<uint4*>(to) = stored[t].all;
      } else {
        for (int k = 0; k < each; ++k) {
          if (k < here) to[k] = stored[t].one[k];
        }
      }
    }
  }
}

template <class Formula>
class UpdateDriver {
  static_assert(std::is_trivially_copyable_v<Formula>);

 public:
  static constexpr DeviceUpdate table() { return {dense, rows}; }

 private:
  static constexpr unsigned threads = 256;

  static UpdateCall<Formula> call(const void* functor, const DeviceUpdateScalars& scalars) {
    return {.formula = *static_cast<const Formula*>(functor), .scalars = scalars};
  }

  static UpdatedRun<Formula> run(float* parameter, float* const* slots, const float* gradient) {
    UpdatedRun<Formula> made{.parameter = parameter, .slot = {}, .gradient = gradient};
    std::copy_n(slots, Formula::slots, made.slot);
    return made;
  }

  static void dense(const void* functor, const DeviceTensor* tensors, std::int64_t tensor_count,
                    const DeviceUpdateScalars& scalars, void* stream) {
    UpdateTable<Formula> table{};
    UpdateCall<Formula> how = call(functor, scalars);
    const auto flush = [&] {
      if (table.tensors == 0) return;
      launch(update_tensors<Formula>,
             Grid{.blocks = static_cast<unsigned>(table.first_block[table.tensors]),
                  .threads = threads},
             static_cast<cudaStream_t>(stream), how, table);
      table.tensors = 0;
    };
    for (std::int64_t t = 0; t < tensor_count; ++t) {
      const DeviceTensor& tensor = tensors[t];
      const bool half = tensor.copy_dtype == DType::f16;
      if (tensor.copy != nullptr && half != how.half_copies) {
        flush();
        how.half_copies = half;
      }
      if (tensor.count > 0) {
        table.tensor[table.tensors] = run(tensor.parameter, tensor.slots, tensor.gradient);
        table.tensor[table.tensors].copy = static_cast<std::uint16_t*>(tensor.copy);
        table.count[table.tensors] = tensor.count;
        table.first_block[table.tensors + 1] =
            table.first_block[table.tensors] +
            static_cast<std::int32_t>((tensor.count + update_part - 1) / update_part);
        ++table.tensors;
      }
      if (table.tensors == table.most) flush();
    }
    flush();
  }

  static void rows(const void* functor, void* parameter, void* const* slots, int,
                   const DeviceRows& rows, const DeviceUpdateScalars& scalars, void* stream) {
    if (rows.count == 0) return;
    const Grid grid{.blocks = blocks_for(rows.count, threads / 32), .threads = threads};
    auto* const on = static_cast<cudaStream_t>(stream);
    if (rows.dtype == DType::bf16) {
      launch(update_bf16_rows<Formula>, grid, on, call(functor, scalars),
             bf16_tensors(parameter, slots, rows), rows);
      return;
    }
    float* of_slots[Formula::slots > 0 ? Formula::slots : 1];
    for (int s = 0; s < Formula::slots; ++s) of_slots[s] = static_cast<float*>(slots[s]);
    launch(update_rows<Formula>, grid, on, call(functor, scalars),
           run(static_cast<float*>(parameter), of_slots, rows.gradient), rows);
  }

  static Bf16Tensors<Formula> bf16_tensors(void* parameter, void* const* slots,
                                           const DeviceRows& rows) {
    Bf16Tensors<Formula> made{};
    auto addresses = reinterpret_cast<std::uintptr_t>(rows.gradient);
    for (int t = 0; t < made.count; ++t) {
      made.tensor[t] = static_cast<std::uint16_t*>(t == 0 ? parameter : slots[t - 1]);
      made.key[t] = mix64(mix64(rows.seed, rounding_purpose), static_cast<std::uint64_t>(t));
      addresses |= reinterpret_cast<std::uintptr_t>(made.tensor[t]);
    }
    made.aligned = addresses % 16 == 0 && rows.width % RowRounding::each == 0;
    return made;
  }
};

}  // namespace ftrain::cuda

namespace ftrain {

template <class Formula>
const void* device_update() {
  static constexpr DeviceUpdate table = cuda::UpdateDriver<Formula>::table();
  return &table;
}

}  // namespace ftrain
