// What stands at the ends of a step: images coming in, guards, updates of parameters.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ftrain/model/optimizer.h"
#include "ftrain/ops/random.h"
#include "ftrain/ops/update.h"
#include "plugins/devices/cpu/reference/plain.h"

namespace ftrain::cpu {
namespace {

template <class T>
auto image_normalize(const Node& node) {
  const Shape& shape = node.input(0).shape;
  const Attributes& a = node.attributes;
  return [batch = shape[0], height = shape[1], width = shape[2],
          mean = static_cast<T>(a.number("mean")), scale = static_cast<T>(a.number("scale")),
          flip = static_cast<float>(a.number("flip")),
          key = mix64(static_cast<std::uint64_t>(a.integer("seed")), flip_purpose),
          first = a.integer("first_sample")](const Buffers& at) {
    const std::uint8_t* pixels = at.input<std::uint8_t>(0);
    const std::int64_t step = *at.input<std::int64_t>(1);
    T* y = at.output<T>(0);
    for (std::int64_t n = 0; n < batch; ++n) {
      const bool flipped = image_flips(key, step, first + n, flip);
      for (std::int64_t c = 0; c < 3; ++c) {
        for (std::int64_t row = 0; row < height; ++row) {
          for (std::int64_t column = 0; column < width; ++column) {
            const std::int64_t from = flipped ? width - 1 - column : column;
            const T pixel = pixels[((n * height + row) * width + from) * 3 + c];
            *y++ = (pixel - mean) * scale;
          }
        }
      }
    }
  };
}

template <class T>
auto clip_coefficient(const Node& node) {
  return [limit = node.attributes.number("limit")](const Buffers& at) {
    const double norm = std::sqrt(double(*at.input<T>(0)));
    *at.output<T>(0) = static_cast<T>(std::min(1.0, limit / (norm + 1e-6)));
  };
}

template <class T>
auto all_finite(const Node& node) {
  return [n = node.inputs.size()](const Buffers& at) {
    bool finite = true;
    for (std::size_t i = 0; i < n; ++i) finite = finite && std::isfinite(*at.input<T>(i));
    *at.output<T>(0) = finite ? T(1) : T(0);
  };
}

// The scale never becomes infinite nor 0: neither would ever leave again.
template <class T>
auto update_loss_scale(const Node& node) {
  const Attributes& a = node.attributes;
  return
      [growth = static_cast<T>(a.number("growth")), backoff = static_cast<T>(a.number("backoff")),
       interval = static_cast<T>(a.integer("interval"))](const Buffers& at) {
        T &scale = *at.state<T>(0), &steps = *at.state<T>(1);
        const bool ok = *at.input<T>(2) != T(0);
        steps = ok ? steps + 1 : T(0);
        if (ok && steps < interval) return;
        steps = 0;
        const T changed = scale * (ok ? growth : backoff);
        if (std::isnormal(static_cast<float>(changed))) scale = changed;
      };
}

template <class T>
auto optimizer_update(const Node& node) {
  namespace in = update_operand;
  const Attributes& a = node.attributes;
  const std::vector<T*> slots(node.inputs.size() - in::first_slot);
  return [n = elements(node.input(0)), update = a.payload_pointer("update"),
          factor = a.number("rate_factor"), decay = a.number("decay"),
          slots = slots](const Buffers& at) mutable {
    if (*at.input<T>(in::ok) == T(0)) return;
    for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = at.state<T>(in::first_slot + i);
    const T* coefficient = at.input<T>(in::coefficient);
    const auto* step = at.input<std::int64_t>(in::step);
    const UpdateScalars scalars{double(*at.input<T>(in::rate)) * factor, decay,
                                coefficient ? double(*coefficient) : 1.0, step ? *step + 1 : 1};
    const auto& rule = static_cast<const Update&>(*update);
    rule.function<T>()(rule.functor, at.state<T>(in::parameter), slots.data(),
                       at.input<T>(in::gradient), n, scalars);
  };
}

// Of any type: bytes are copied.
std::unique_ptr<Kernel> slice_rows(const Node& node, const KernelEnvironment&) {
  const std::size_t bytes = node.outputs[0].bytes();
  const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(node.input(0).shape[0], 1));
  const std::size_t first =
      node.input(0).bytes() / rows * static_cast<std::size_t>(node.attributes.integer("first"));
  return kernel_of([bytes, first](const Buffers& at) {
    std::memcpy(at.output<char>(0), at.input<char>(0) + first, bytes);
  });
}

std::unique_ptr<Kernel> concat_rows(const Node& node, const KernelEnvironment&) {
  std::vector<std::size_t> bytes;
  for (const Value& part : node.inputs) bytes.push_back(part.type().bytes());
  return kernel_of([bytes = std::move(bytes)](const Buffers& at) {
    char* to = at.output<char>(0);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      std::memcpy(to, at.input<char>(i), bytes[i]);
      to += bytes[i];
    }
  });
}

}  // namespace

void add_plain_step(KernelList& list) {
  list.add(plain("image_normalize",
                 []<class T>(const Node& node, T) { return image_normalize<T>(node); }));
  list.add(plain("clip_coefficient",
                 []<class T>(const Node& node, T) { return clip_coefficient<T>(node); }));
  list.add(plain("all_finite", []<class T>(const Node& node, T) { return all_finite<T>(node); }));
  list.add(plain("update_loss_scale",
                 []<class T>(const Node& node, T) { return update_loss_scale<T>(node); }));
  list.add(plain("constant", []<class T>(const Node& node, T) {
    return [value = static_cast<T>(node.attributes.number("value"))](const Buffers& at) {
      *at.output<T>(0) = value;
    };
  }));
  list.add({"slice_rows", plain_name, 0, refuse_layouts, slice_rows});
  list.add({"concat_rows", plain_name, 0, refuse_layouts, concat_rows});
  list.add(plain("assign", []<class T>(const Node& node, T) {
    return [n = elements(node.input(0))](const Buffers& at) {
      if (*at.input<T>(2) != T(0)) std::copy_n(at.input<T>(1), n, at.state<T>(0));
    };
  }));
  list.add(plain("optimizer_update",
                 []<class T>(const Node& node, T) { return optimizer_update<T>(node); }));
}

}  // namespace ftrain::cpu
