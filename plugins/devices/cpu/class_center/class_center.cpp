// The class-center kernels of the list: the plain ones and the tiled walks.
#include "plugins/devices/cpu/class_center/tiled.h"
#include "plugins/devices/cpu/kernels.h"

namespace ftrain::cpu {
namespace {

std::string refuse_f64(const Node& node, const KernelEnvironment&) {
  return node.input(0).dtype == DType::f32 ? "" : "only f32";
}

}  // namespace

void add_class_center_kernels(KernelList& list) {
  add_plain_class_center_kernels(list);
  using Environment = const KernelEnvironment&;
  list.add({"class_center_forward", "tiled", 10, refuse_f64,
            [](const Node& node, Environment e) { return make_tiled_forward(node, e.threads); }});
  list.add({"class_center_backward", "tiled", 10, refuse_f64, [](const Node& node, Environment e) {
              return make_tiled_backward(node, e.threads, false);
            }});
  list.add({"class_center_update", "tiled", 10, refuse_f64, [](const Node& node, Environment e) {
              return make_tiled_backward(node, e.threads, true);
            }});
}

}  // namespace ftrain::cpu
