#include "core/checkpoint/state.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <optional>
#include <thread>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/base/philox.h"
#include "ftrain/base/suggest.h"

namespace ftrain {
namespace {

// Element `i` of the logical tensor. Normal numbers by Box and Muller, one from each draw.
double first_value(const Initializer& init, std::uint64_t key, std::uint64_t i) {
  if (init.kind == Initializer::Kind::constant) return init.a;
  const Philox draw = Philox::at(key, std::uint64_t{0}, i);
  const double u = (static_cast<double>(draw.bits64(0) >> 11) + 0.5) * 0x1p-53;
  if (init.kind == Initializer::Kind::uniform) return init.a + (init.b - init.a) * u;
  const double v = static_cast<double>(draw.bits64(1) >> 11) * 0x1p-53;
  return init.a + init.b * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

// Calls work(i) for 0 <= i < count, on all cores when there is enough to do.
template <class Work>
void in_parallel(std::size_t count, const Work& work) {
  constexpr std::size_t worth_a_thread = 1 << 16;
  const std::size_t threads = std::clamp<std::size_t>(
      count / worth_a_thread, 1, std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::jthread> pool;
  for (std::size_t t = 0; t < threads; ++t) {
    pool.emplace_back([&, t] {
      for (std::size_t i = count * t / threads; i < count * (t + 1) / threads; ++i) work(i);
    });
  }
}

// Rows of a logical tensor.
struct Rows {
  std::int64_t first = 0, last = 0;
};

// The rows of the piece `stored` of the tensor `name`, if it is one.
std::optional<Rows> rows_of(const std::string& stored, const std::string& name) {
  if (stored.size() < name.size() + 5 || stored.compare(0, name.size(), name) != 0 ||
      stored[name.size()] != '[') {
    return std::nullopt;
  }
  Rows rows;
  const char* const end = stored.data() + stored.size();
  auto parsed = std::from_chars(stored.data() + name.size() + 1, end, rows.first);
  if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != ':') return std::nullopt;
  parsed = std::from_chars(parsed.ptr + 1, end, rows.last);
  if (parsed.ec != std::errc() || parsed.ptr + 1 != end) return std::nullopt;
  return rows;
}

[[noreturn]] void wrong_shape(const std::string& where, const std::string& name,
                              const TensorType& want, const Shape& got) {
  throw DataError(where + ": tensor '" + name + "' is " + got.text() + ", this job's is " +
                  want.shape.text() +
                  "; check [backbone] (depth, embedding) and the number of classes");
}

// States are made, written and read in parts of this many elements at most: a table of millions of
// classes needs no second copy. Those that a device holds in an order of its own are small and go
// as a whole.
constexpr std::size_t part_elements = std::size_t{1} << 20;

std::size_t part_of(const TensorType& type) {
  const auto count = static_cast<std::size_t>(type.shape.elements());
  return type.layout.empty() ? std::min(count, part_elements) : count;
}

// What is stored in f32 may be continued in bf16, to the nearest, and the other way.
void convert(DType from, const void* values, std::size_t count, DType to, void* made) {
  if (from == DType::f32 && to == DType::bf16) {
    in_parallel(count, [&](std::size_t i) {
      static_cast<BF16*>(made)[i] = to_bf16(static_cast<const float*>(values)[i]);
    });
  } else {
    in_parallel(count, [&](std::size_t i) {
      static_cast<float*>(made)[i] = to_f32(static_cast<const BF16*>(values)[i]);
    });
  }
}

bool converts(DType from, DType to) {
  return from == to || (from == DType::f32 && to == DType::bf16) ||
         (from == DType::bf16 && to == DType::f32);
}

// Elements [first, first + count) of a state.
void write_values(StateStore& store, const StateSpec& spec, std::size_t first, std::size_t count,
                  DType dtype, const void* values) {
  if (dtype == spec.type.dtype) return store.write_part(spec.name, first, count, values);
  std::vector<std::byte> made(count * size_of(spec.type.dtype));
  convert(dtype, values, count, spec.type.dtype, made.data());
  store.write_part(spec.name, first, count, made.data());
}

// Elements [first, first + count) from those of a mapped file's tensor from `begin` on. The file is
// let go of behind each part.
template <class Forget>
void write_in_parts(StateStore& store, const StateSpec& spec, std::size_t first, std::size_t count,
                    const TensorView& view, std::size_t begin, const std::string& where,
                    const Forget& forget) {
  if (!converts(view.dtype, spec.type.dtype)) {
    throw DataError(where + ": tensor '" + view.name + "' is " +
                    std::string(safetensors_name(view.dtype)) + ", this job's is " +
                    std::string(safetensors_name(spec.type.dtype)));
  }
  const std::size_t size = size_of(view.dtype), part = part_of(spec.type);
  const auto* const from = static_cast<const std::byte*>(view.data) + begin * size;
  for (std::size_t done = 0; done < count; done += part) {
    const std::size_t now = std::min(part, count - done);
    write_values(store, spec, first + done, now, view.dtype, from + done * size);
    forget(from + done * size, now * size);
  }
}

// Writes this rank's rows from whatever pieces the checkpoint holds.
void restore_state(StateStore& store, CheckpointReader& checkpoint, const StateSpec& spec) {
  const Shape& shape = spec.type.shape;
  const std::string where = checkpoint.path().string();
  // What was trained without a scaled loss goes on with the first scale.
  if (spec.name.starts_with("loss_scale") && !checkpoint.has(spec.name)) {
    const auto first = static_cast<float>(spec.initializer.a);
    return store.write(spec.name, &first);
  }
  if (spec.rows == 0) {
    const TensorView& view = checkpoint.view(spec.name);
    if (view.shape != shape) wrong_shape(where, spec.name, spec.type, view.shape);
    write_in_parts(
        store, spec, 0, static_cast<std::size_t>(shape.elements()), view, 0, where,
        [&](const void* part, std::size_t bytes) { checkpoint.forget(spec.name, part, bytes); });
    return;
  }
  const std::size_t row = shape[0] == 0 ? 0 : static_cast<std::size_t>(shape.elements() / shape[0]);
  const Rows mine{spec.first_row, spec.first_row + shape[0]};
  std::int64_t filled = 0, stored_rows = 0;
  const auto take = [&](const std::string& stored, Rows piece) {
    const std::int64_t first = std::max(piece.first, mine.first);
    const std::int64_t last = std::min(piece.last, mine.last);
    stored_rows = std::max(stored_rows, piece.last);
    // Rows of others are not looked at: at many ranks they are nearly all.
    if (first >= last) return;
    const TensorView& view = checkpoint.view(stored);
    if (view.shape.rank() != shape.rank() || (shape.rank() == 2 && view.shape[1] != shape[1])) {
      wrong_shape(where, spec.name, spec.type, view.shape);
    }
    write_in_parts(
        store, spec, static_cast<std::size_t>(first - mine.first) * row,
        static_cast<std::size_t>(last - first) * row, view,
        static_cast<std::size_t>(first - piece.first) * row, where,
        [&](const void* part, std::size_t bytes) { checkpoint.forget(stored, part, bytes); });
    filled += last - first;
  };
  if (checkpoint.has(spec.name)) {
    take(spec.name, {0, checkpoint.view(spec.name).shape[0]});
  } else {
    for (const std::string& stored : checkpoint.names()) {
      if (const auto rows = rows_of(stored, spec.name)) take(stored, *rows);
    }
  }
  if (stored_rows == 0 && spec.rows > 0) {
    throw DataError(where + ": holds no tensor '" + spec.name +
                    "'; resume with the [optimizer] that it was trained with");
  }
  if (filled != shape[0] || stored_rows != spec.rows) {
    throw DataError(where + ": tensor '" + spec.name + "' has " + std::to_string(stored_rows) +
                    " rows, this job has " + std::to_string(spec.rows) +
                    " classes; resume with the data set that it was trained on");
  }
}

}  // namespace

void initialize(StateStore& store, std::uint64_t seed) {
  for (const StateStore::Entry& entry : store.entries()) {
    const StateSpec& spec = entry.spec;
    const auto count = static_cast<std::size_t>(spec.type.shape.elements());
    const std::uint64_t offset = spec.rows > 0 && spec.type.shape[0] > 0
                                     ? static_cast<std::uint64_t>(spec.first_row) * count /
                                           static_cast<std::uint64_t>(spec.type.shape[0])
                                     : 0;
    const std::uint64_t key = mix64(seed, name_hash(spec.name));
    const std::size_t part = part_of(spec.type);
    std::vector<float> values(part);
    for (std::size_t first = 0; first < count; first += part) {
      const std::size_t last = std::min(count, first + part);
      in_parallel(last - first, [&](std::size_t i) {
        values[i] = static_cast<float>(first_value(spec.initializer, key, offset + first + i));
      });
      write_values(store, spec, first, last - first, DType::f32, values.data());
    }
  }
}

void load_initial_weights(StateStore& store, const InitialWeights& init) {
  if (init.backbone) {
    const SafetensorsFile file(*init.backbone);
    std::vector<std::string> known;
    for (const StateStore::Entry& entry : store.entries()) {
      const StateSpec& spec = entry.spec;
      if (spec.role == StateSpec::Role::slot || spec.name == "centers.weight") continue;
      known.push_back(spec.name);
      const TensorView& view = file.at(spec.name);
      if (view.shape != spec.type.shape) {
        wrong_shape(init.backbone->string(), spec.name, spec.type, view.shape);
      }
      write_in_parts(store, spec, 0, static_cast<std::size_t>(spec.type.shape.elements()), view, 0,
                     init.backbone->string(),
                     [&](const void* part, std::size_t bytes) { file.forget(part, bytes); });
    }
    for (const TensorView& view : file.tensors()) {
      if (view.name.ends_with("num_batches_tracked")) continue;
      if (std::find(known.begin(), known.end(), view.name) == known.end()) {
        throw DataError(init.backbone->string() + ": this job's backbone has no tensor '" +
                        view.name + "'." + did_you_mean(view.name, known));
      }
    }
  }
  if (init.centers) {
    const SafetensorsFile file(*init.centers);
    const TensorView& view = file.at("weight");
    for (const StateStore::Entry& entry : store.entries()) {
      const StateSpec& spec = entry.spec;
      if (spec.name != "centers.weight") continue;
      if (view.shape != Shape{spec.rows, spec.type.shape[1]}) {
        throw DataError(init.centers->string() + ": tensor 'weight' is " + view.shape.text() +
                        ", this job wants [classes, embedding] = " +
                        Shape{spec.rows, spec.type.shape[1]}.text());
      }
      const auto skip = static_cast<std::size_t>(spec.first_row * spec.type.shape[1]);
      write_in_parts(store, spec, 0, static_cast<std::size_t>(spec.type.shape.elements()), view,
                     skip, init.centers->string(),
                     [&](const void* part, std::size_t bytes) { file.forget(part, bytes); });
    }
  }
}

void restore(StateStore& store, CheckpointReader& checkpoint) {
  for (const StateStore::Entry& entry : store.entries()) {
    restore_state(store, checkpoint, entry.spec);
  }
}

}  // namespace ftrain
