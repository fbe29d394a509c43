#include <cstdio>
#include <nlohmann/json.hpp>

#include "launch/cluster/prediction.h"
#include "launch/command_line.h"

namespace ftrain::cluster {
namespace {

using Json = nlohmann::ordered_json;
using launch::count_text;
using launch::memory_text;

template <class... Values>
std::string text(const char* format, Values... values) {
  char line[256];
  std::snprintf(line, sizeof line, format, values...);
  return line;
}

std::string milliseconds(double seconds) {
  return text("%9.2f", 1e3 * seconds);
}

std::string megabytes(double bytes) {
  return text("%9.1f", bytes / 1e6);
}

constexpr const char* columns =
    " compute  blocking   exposed   waiting      step  samples/s  speedup efficient   MB inside "
    "MB between       memory\n";

std::string columns_of(const Prediction& p) {
  return milliseconds(p.time.compute).substr(1) + " " + milliseconds(p.time.blocking) + " " +
         milliseconds(p.time.exposed) + " " + milliseconds(p.time.waiting) + " " +
         milliseconds(p.time.total()) +
         text(" %10.0f %8.2f %8.1f %%", p.samples_per_second, p.speedup, 100 * p.efficiency()) +
         "   " + megabytes(p.traffic.inside) + "  " + megabytes(p.traffic.between) +
         text(" %12s", memory_text(p.resident + p.arena).c_str()) + (p.fits ? "" : " too much") +
         (p.time.data > 0 ? " reading bounds it" : "") + "\n";
}

Json json_of(const Prediction& p) {
  Json json;
  json["parallelism"] = p.parallelism;
  json["ranks"] = p.ranks.count();
  json["nodes"] = p.ranks.nodes;
  json["batch"] = p.samples;
  json["global_batch"] = p.samples * p.ranks.count();
  json["step_seconds"] = p.time.total();
  json["compute_seconds"] = p.time.compute;
  json["class_center_seconds"] = p.compute.centers;
  json["blocking_seconds"] = p.time.blocking;
  json["overlapping_seconds"] = p.time.overlapping;
  json["exposed_seconds"] = p.time.exposed;
  json["waiting_seconds"] = p.time.waiting;
  json["data_seconds"] = p.time.data;
  json["samples_per_second"] = p.samples_per_second;
  json["speedup"] = p.speedup;
  json["efficiency"] = p.efficiency();
  json["sent_inside_bytes"] = p.traffic.inside;
  json["sent_between_bytes"] = p.traffic.between;
  json["resident_bytes"] = p.resident;
  json["arena_bytes"] = p.arena;
  json["memory_bytes"] = p.resident + p.arena;
  json["fits"] = p.fits;
  return json;
}

std::string basis_of(const ClusterPlan& plan) {
  const DeviceDescription& device = plan.cluster.device;
  if (plan.measured != nullptr) {
    return text("%.4g samples/s of the network, measured (%s)", plan.measured->samples_per_second,
                plan.measured->name.c_str());
  }
  return text("by counting, %.4g TFLOP/s in %s, of which the network reaches %.0f %%, %.4g GB/s",
              device.flops / 1e12, plan.precision.c_str(), 100 * device.reach,
              device.bandwidth / 1e9);
}

}  // namespace

std::string cluster_text(const ClusterPlan& plan, const std::string& job) {
  const Description& cluster = plan.cluster;
  const Prediction& full = plan.counts.back();
  std::string out;
  for (const std::string& note : plan.notes) out += "note: " + note + "\n";
  out += job + " on " + cluster.name + ": predicted, not run\n";
  out += "device: " + cluster.device.name + ", " + basis_of(plan) + "\n";
  out += text("step: %s samples a rank, %.4g GFLOP a sample, ", count_text(full.samples).c_str(),
              (plan.work.forward.flops + plan.work.backward.flops) / plan.work.samples / 1e9) +
         count_text(plan.classes) + " classes\n";
  out += "milliseconds of a step; MB that a rank sends in it; memory of a rank\n\n" +
         full.parallelism + "\n   ranks " + columns;
  for (const Prediction& p : plan.counts) {
    out += text("%8s ", count_text(p.ranks.count()).c_str()) + columns_of(p);
  }
  out += "\non " + count_text(full.ranks.count()) + " ranks\n" + std::string(16, ' ') + columns;
  for (const Prediction& p : plan.strategies) {
    out += text("%-16s", p.parallelism.c_str()) + columns_of(p);
  }
  return out;
}

std::string cluster_json(const ClusterPlan& plan, const std::string& job) {
  Json json;
  json["name"] = job;
  json["cluster"] = plan.cluster.name;
  json["nodes"] = plan.cluster.nodes;
  json["devices"] = plan.cluster.devices;
  json["device"] = plan.cluster.device.name;
  json["device_memory_bytes"] = plan.cluster.device.memory;
  json["basis"] = basis_of(plan);
  json["precision"] = plan.precision;
  json["notes"] = plan.notes;
  json["classes"] = plan.classes;
  json["flops_per_sample"] =
      (plan.work.forward.flops + plan.work.backward.flops) / plan.work.samples;
  json["activation_elements_per_sample"] =
      (plan.work.forward.elements + plan.work.backward.elements) / plan.work.samples;
  json["counts"] = Json::array();
  for (const Prediction& p : plan.counts) json["counts"].push_back(json_of(p));
  json["strategies"] = Json::array();
  for (const Prediction& p : plan.strategies) json["strategies"].push_back(json_of(p));
  return json.dump(2) + "\n";
}

}  // namespace ftrain::cluster
