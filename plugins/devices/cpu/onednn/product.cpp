// Matrix products and reorders.
#include "plugins/devices/cpu/device/kernels.h"
#include "plugins/devices/cpu/onednn/kernels.h"
#include "plugins/devices/cpu/onednn/onednn.h"
#include "plugins/devices/cpu/onednn/sequence.h"

namespace ftrain::cpu {
namespace {

using dnnl::memory;

std::string refuse_product(const Node& node, const KernelEnvironment&) {
  if (node.input(0).dtype != DType::f32 || node.input(1).dtype != DType::f32) {
    return "oneDNN's product is for f32";
  }
  if (!node.input(0).layout.empty() || !node.input(1).layout.empty()) return "not row-major";
  return "";
}

memory::desc matrix(const Shape& shape, bool transposed) {
  if (!transposed) return {{shape[0], shape[1]}, memory::data_type::f32, memory::format_tag::ab};
  return {{shape[1], shape[0]}, memory::data_type::f32, memory::format_tag::ba};
}

std::unique_ptr<Kernel> make_product(const Node& node, const KernelEnvironment&) {
  const memory::desc a = matrix(node.input(0).shape, node.attributes.flag("transpose_a"));
  const memory::desc b = matrix(node.input(1).shape, node.attributes.flag("transpose_b"));
  const memory::desc c = matrix(node.outputs[0].shape, false);
  const auto desc = product_of(a, b, c);
  auto sequence = std::make_unique<Sequence>();
  sequence->run_with_scratchpad(desc, dnnl::matmul(desc),
                                {{DNNL_ARG_SRC, sequence->input(0, a)},
                                 {DNNL_ARG_WEIGHTS, sequence->input(1, b)},
                                 {DNNL_ARG_DST, sequence->output(0, c)}});
  return sequence;
}

std::string refuse_reorder(const Node& node, const KernelEnvironment&) {
  if (!describe(node.input(0)) || !describe(node.outputs[0])) return "a layout is not oneDNN's";
  return "";
}

std::unique_ptr<Kernel> make_reorder(const Node& node, const KernelEnvironment&) {
  auto sequence = std::make_unique<Sequence>();
  const auto from = sequence->input(0, *describe(node.input(0)));
  sequence->finish(from, sequence->output(0, *describe(node.outputs[0])));
  return sequence;
}

}  // namespace

void add_products(KernelList& list) {
  list.add({"matmul", "onednn", 20, refuse_product, make_product});
}

void add_reorders(KernelList& list) {
  list.add({"reorder", "onednn", 20, refuse_reorder, make_reorder});
  list.add({"cast", "onednn", 8, refuse_reorder, make_reorder});
}

void add_onednn_kernels(KernelList& list) {
  add_convolutions(list);
  add_grouped_convolutions(list);
  add_whole_depthwise(list);
  add_products(list);
  add_reorders(list);
}

}  // namespace ftrain::cpu
