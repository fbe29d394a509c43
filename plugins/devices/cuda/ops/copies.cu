// What copies: casts, rows, other shapes, one number or row for many.
#include "plugins/devices/cuda/ops/kernels/copy.cuh"
#include "plugins/devices/cuda/ops/pointwise.h"

namespace ftrain::cuda {
namespace {

// ---- bytes
void copy_bytes(const void* from, void* to, std::size_t bytes, const Context& context,
                cudaStream_t stream) {
  const auto copy = [&]<class Word>(Word) {
    const auto count = static_cast<std::int64_t>(bytes / sizeof(Word));
    launch(copy_words<Word>, {.blocks = resident_blocks(count, context)}, stream,
           static_cast<const Word*>(from), static_cast<Word*>(to), count);
  };
  const auto all = reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to) |
                   static_cast<std::uintptr_t>(bytes);
  if (all % 16 == 0)
    copy(uint4{});
  else if (all % 4 == 0)
    copy(std::uint32_t{});
  else
    copy(std::uint8_t{});
}

// The first dimension is the outermost in every order.
std::string refuse_slice(const Node& node, const KernelEnvironment&) {
  if (node.input(0).layout == node.outputs[0].layout) return {};
  return "wants one order, not both " + node.input(0).text() + " and " + node.outputs[0].text();
}

std::unique_ptr<Kernel> make_slice(const Node& node, const KernelEnvironment& environment) {
  const std::size_t bytes = node.outputs[0].bytes();
  const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(node.input(0).shape[0], 1));
  const std::size_t first =
      node.input(0).bytes() / rows * static_cast<std::size_t>(node.attributes.integer("first"));
  const Context& context = context_of(environment);
  return kernel_of(environment, [=, &context](const Buffers& at, cudaStream_t stream) {
    if (bytes == 0) return;
    copy_bytes(at.input<char>(0) + first, at.outputs[0], bytes, context, stream);
  });
}

std::string refuse_concat(const Node& node, const KernelEnvironment&) {
  for (const Value& part : node.inputs) {
    if (part.type().layout != node.outputs[0].layout) {
      return "wants one order, not both " + part.type().text() + " and " + node.outputs[0].text();
    }
  }
  return {};
}

std::unique_ptr<Kernel> make_concat(const Node& node, const KernelEnvironment& environment) {
  std::vector<std::size_t> bytes;
  for (const Value& part : node.inputs) bytes.push_back(part.type().bytes());
  const Context& context = context_of(environment);
  return kernel_of(environment,
                   [bytes = std::move(bytes), &context](const Buffers& at, cudaStream_t stream) {
                     char* to = at.output<char>(0);
                     for (std::size_t i = 0; i < bytes.size(); ++i) {
                       if (bytes[i] > 0) copy_bytes(at.inputs[i], to, bytes[i], context, stream);
                       to += bytes[i];
                     }
                   });
}

// ---- reshapes: a shape's elements stay in row-major order, so images that lie channels-last are
// put in order, or out of it.
bool is_ordered(const TensorType& type) {
  if (type.layout.empty()) return true;
  return type.shape[1] == 1 || type.shape[2] * type.shape[3] == 1;
}

std::string refuse_reshape(const Node& node, const KernelEnvironment&) {
  const TensorType &from = node.input(0), &to = node.outputs[0];
  for (const TensorType* const type : {&from, &to}) {
    if (type->layout != row_major && (type->layout != channels_last || type->shape.rank() != 4)) {
      return "knows row-major and channels-last images only, not " + type->text();
    }
  }
  if (!is_ordered(from) && !is_ordered(to) && from.shape != to.shape) {
    return "wants one side in row-major order, not " + from.text() + " and " + to.text();
  }
  return {};
}

std::unique_ptr<Kernel> make_reshape(const Node& node, const KernelEnvironment& environment) {
  const TensorType &from = node.input(0), &to = node.outputs[0];
  const Context& context = context_of(environment);
  if (is_ordered(from) == is_ordered(to)) {
    return kernel_of(environment,
                     [bytes = to.bytes(), &context](const Buffers& at, cudaStream_t stream) {
                       if (bytes > 0)
                         copy_bytes(at.inputs[0], at.outputs[0], bytes, context, stream);
                     });
  }
  const ChannelOrder order(is_ordered(from) ? to : from);
  const std::int64_t rows = is_ordered(from) ? order.channels : order.positions;
  const std::int64_t columns = is_ordered(from) ? order.positions : order.channels;
  const auto make = [&]<class Word>(Word) {
    return kernel_of(environment, [=, batch = order.samples](const Buffers& at,
                                                             cudaStream_t stream) {
      if (batch == 0) return;
      const auto tiles = [](std::int64_t extent) { return (extent + tile_edge - 1) / tile_edge; };
      const auto most = [](std::int64_t count) {
        return static_cast<unsigned>(std::min<std::int64_t>(count, 65535));
      };
      Grid grid{.threads = tile_edge * tile_lines, .shared = tile_bytes<Word>};
      grid.blocks = dim3(static_cast<unsigned>(tiles(columns)), most(tiles(rows)), most(batch));
      launch(transpose<Word>, grid, stream, at.input<Word>(0), at.output<Word>(0), batch, rows,
             columns);
    });
  };
  switch (size_of(to.dtype)) {
    case 1:
      return make(std::uint8_t{});
    case 2:
      return make(std::uint16_t{});
    case 4:
      return make(std::uint32_t{});
    default:
      return make(std::uint64_t{});
  }
}

// ---- casts
template <class F>
auto with_element(DType dtype, const F& f) {
  switch (dtype) {
    case DType::u8:
      return f(std::uint8_t{});
    case DType::i32:
      return f(std::int32_t{});
    case DType::i64:
      return f(std::int64_t{});
    case DType::bf16:
      return f(__nv_bfloat16{});
    case DType::f16:
      return f(__half{});
    default:
      return f(float{});
  }
}

std::string refuse_cast(const Node& node, const KernelEnvironment&) {
  const TensorType &from = node.input(0), &to = node.outputs[0];
  for (const DType dtype : {from.dtype, to.dtype}) {
    if (is_floating(dtype) && !is_stored(dtype)) {
      return "stores floats as f32, bf16 and f16 only, not " + std::string(name_of(dtype));
    }
  }
  if (from.layout == to.layout) return {};
  return "wants one order, not both " + from.text() + " and " + to.text();
}

template <class From, class To>
void launch_cast(std::int64_t count, const Context& context, const Buffers& at,
                 cudaStream_t stream) {
  std::int64_t done = 0;
  const auto* const from = at.input<From>(0);
  auto* const to = at.output<To>(0);
  constexpr bool narrows = std::is_same_v<From, float> && is_16_bit<To>;
  if constexpr (narrows || (is_16_bit<From> && std::is_same_v<To, float>)) {
    const std::int64_t eights = aligned({from, to}) ? count / 8 : 0;
    const Grid grid{.blocks = resident_blocks(eights, context)};
    if (eights > 0) {
      if constexpr (narrows)
        launch(narrow_floats<To>, grid, stream, from, to, eights);
      else
        launch(widen_floats<From>, grid, stream, from, to, eights);
    }
    done = 8 * eights;
  }
  if (done == count) return;
  launch(convert<From, To>, {.blocks = resident_blocks(count - done, context)}, stream, from + done,
         to + done, count - done);
}

std::unique_ptr<Kernel> make_cast(const Node& node, const KernelEnvironment& environment) {
  return with_element(node.input(0).dtype, [&]<class From>(From) {
    return with_element(node.outputs[0].dtype, [&]<class To>(To) {
      const Context& context = context_of(environment);
      return kernel_of(environment, [n = elements(node.outputs[0]), &context](const Buffers& at,
                                                                              cudaStream_t stream) {
        launch_cast<From, To>(n, context, at, stream);
      });
    });
  });
}

// ---- one for many
std::unique_ptr<Kernel> make_fill(const Node& node, const KernelEnvironment& environment) {
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    const Context& context = context_of(environment);
    return kernel_of(environment, [n = elements(node.outputs[0]), &context](const Buffers& at,
                                                                            cudaStream_t stream) {
      const Span<T> span = span_of<T>(n, {at.outputs[0]});
      launch(fill<T>, flat_grid(span, context), stream, span, at.input<T>(0), at.output<T>(0));
    });
  });
}

std::unique_ptr<Kernel> make_repeat(const Node& node, const KernelEnvironment& environment) {
  return with_storage(node.outputs[0].dtype, [&]<class T>(T) {
    const Context& context = context_of(environment);
    const Channels columns{node.outputs[0].shape[1], 1};
    return kernel_of(environment, [n = elements(node.outputs[0]), columns, &context](
                                      const Buffers& at, cudaStream_t stream) {
      const Span<T> span = span_of<T>(n, {at.outputs[0]});
      launch(repeat<T>, flat_grid(span, context), stream, columns, span, at.input<T>(0),
             at.output<T>(0));
    });
  });
}

}  // namespace

void add_copy_kernels(KernelList& list) {
  list.add({"cast", own_name, 10, refuse_cast, make_cast});
  list.add({"slice_rows", own_name, 10, refuse_slice, make_slice});
  list.add({"concat_rows", own_name, 10, refuse_concat, make_concat});
  list.add({"reshape", own_name, 10, refuse_reshape, make_reshape});
  list.add({"reorder", own_name, 10, refuse_reshape, make_reshape});
  list.add({"fill_like", own_name, 10, refuse_storage, make_fill});
  list.add({"repeat_rows", own_name, 10, refuse_storage, make_repeat});
}

}  // namespace ftrain::cuda
