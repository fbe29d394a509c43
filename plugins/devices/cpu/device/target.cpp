#include "plugins/devices/cpu/device/target.h"

#include <utility>

#include "plugins/devices/cpu/device/layout.h"
#include "plugins/devices/cpu/rewrite/depthwise.h"
#include "plugins/devices/cpu/rewrite/fold.h"
#include "plugins/devices/cpu/rewrite/layouts.h"

namespace ftrain::cpu {

CpuTarget::CpuTarget(const KernelList& kernels, KernelEnvironment environment,
                     CompileOptions options, bool tunes, const Answers& repeated, Answers& used)
    : kernels_(kernels),
      environment_(std::move(environment)),
      options_(std::move(options)),
      tunes_(tunes),
      tuner_(kernels_, environment_, repeated),
      used_(used) {}

CpuTarget::~CpuTarget() {
  used_.insert(tuner_.used().begin(), tuner_.used().end());
}

KernelChoice CpuTarget::choose(const Node& node) {
  return tunes_ ? tuner_.choose(node) : kernels_.choose(node, environment_);
}

std::unique_ptr<Graph> CpuTarget::rewrite(Place place, std::unique_ptr<Graph> graph) {
  switch (place) {
    case Place::plain:
      return fold(*graph, environment_);
    case Place::arranged:
      return fuse_depthwise(*graph);
    case Place::fused:
      break;
  }
  return graph;
}

std::unique_ptr<Graph> CpuTarget::arrange(std::unique_ptr<Graph> graph, const StateStore* store) {
  return assign_layouts(*graph, kernels_, environment_, store);
}

bool CpuTarget::takes_fused_norm(const TensorType& activation) const {
  return takes_fused_norms(activation);
}

}  // namespace ftrain::cpu
