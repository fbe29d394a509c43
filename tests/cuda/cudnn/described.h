// GPUs that need not be here, as cuDNN reads a device's properties, and what networks ask of it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "ftrain/config/table.h"
#include "ftrain/graph/opdef.h"
#include "ftrain/model/backbone.h"
#include "ftrain/ops.h"
#include "ftrain/plugin/registry.h"
#include "plugins/devices/cuda/cudnn/library.h"

namespace ftrain::cuda {

struct DescribedGpu {
  const char* name;
  int architecture, multiprocessors, clock, memory_clock, second_cache, shared_memory;
  std::int64_t memory;

  std::string description() const {
    const auto number = [](const char* key, std::int64_t value) {
      return ",\"" + std::string(key) + "\":" + std::to_string(value);
    };
    return "{\"deviceName\":\"" + std::string(name) + "\"" + number("cudaDeviceId", 0) +
           number("deviceVer", architecture) + number("driverVer", 13000) +
           number("isTccDriver", 0) + number("l2CacheSize", second_cache) +
           ",\"maxBlockSize\":[1024,1024,64]" + number("maxCtasPerSM", 32) +
           ",\"maxGridSize\":[2147483647,65535,65535]" + number("maxRegistersPerSM", 65536) +
           number("maxSharedMemoryPerBlock", 49152) +
           number("maxSharedMemoryPerBlockOptin", shared_memory) +
           number("maxThreadsPerBlock", 1024) + number("maxThreadsPerSM", 2048) +
           number("memClockRateKHz", memory_clock) +
           number("multiProcessorCount", multiprocessors) + number("pciDeviceId", 0) +
           number("regsPerBlock", 65536) + number("reservedSharedMemoryPerBlock", 1024) +
           number("smClockRateKHz", clock) + number("supportCoopLaunch", 1) +
           number("totalGlobalMem", memory) + number("warpSize", 32) + "}";
  }
};

inline void PrintTo(const DescribedGpu& gpu, std::ostream* out) {
  *out << gpu.name;
}

inline constexpr DescribedGpu h200{"NVIDIA H200", 900,      132,    1980000,
                                   3201000,       62914560, 232448, std::int64_t{150121545728}};
inline constexpr DescribedGpu a100{
    "NVIDIA A100-SXM4-80GB",  800, 108, 1410000, 1593000, 41943040, 166912,
    std::int64_t{85045018624}};

inline CudnnOptions options_for(const DescribedGpu& gpu) {
  return {.gpu = gpu.name, .driver = 13000};
}

struct DenseConvolution {
  Shape x, w;
  std::int64_t stride, padding;
  auto key() const { return std::tuple(x.extents(), w.extents(), stride, padding); }
};

// Each distinct one of a network on images of 112 x 112.
inline void add_convolutions(const std::string& backbone, std::int64_t batch,
                             std::vector<DenseConvolution>& all) {
  static Registry registry({FTRAIN_PLUGINS});
  const Job job = Job::parse("[backbone]\n" + backbone);
  Graph graph;
  const Value image = graph.input("image", {DType::f32, {batch, 3, 112, 112}});
  Build build{.graph = graph, .training = true};
  const auto network = registry.create<Backbone>(job);
  graph.fetch("embedding", network->forward(Scope(build), image));
  std::set<decltype(std::declval<DenseConvolution>().key())> known;
  for (const DenseConvolution& one : all) known.insert(one.key());
  for (std::int32_t i = 0; i < graph.size(); ++i) {
    const Node& node = graph.node(i);
    if (node.op->name != "conv2d" || node.attributes.integer("groups") != 1) continue;
    DenseConvolution one{node.input(0).shape, node.input(1).shape,
                         node.attributes.integer("stride"), node.attributes.integer("padding")};
    if (known.insert(one.key()).second) all.push_back(std::move(one));
  }
}

inline constexpr std::array ops_of_convolution{"conv2d", "conv2d_input_grad", "conv2d_weight_grad"};

// A node of one of these ops, channels-last, in a graph of its own.
struct ConvolutionNode {
  ConvolutionNode(const DenseConvolution& of, DType dtype, std::string_view op,
                  std::int64_t groups = 1, const char* layout = channels_last) {
    const ops::Conv2d options{.stride = of.stride, .padding = of.padding, .groups = groups};
    const Value x = graph.input("x", {dtype, of.x, layout});
    const Value w = graph.input("w", {dtype, of.w, layout});
    Value made = ops::conv2d(x, w, options);
    graph.node(made.node_index()).outputs[0].layout = layout;
    if (op == "conv2d_input_grad") made = ops::conv2d_input_grad(made, w, of.x, options);
    if (op == "conv2d_weight_grad") made = ops::conv2d_weight_grad(made, x, of.w, options);
    graph.node(made.node_index()).outputs[0].layout = layout;
    index = made.node_index();
  }
  Node& node() { return graph.node(index); }

  Graph graph;
  std::int32_t index = 0;
};

}  // namespace ftrain::cuda
