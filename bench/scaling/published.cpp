#include "bench/scaling/published.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

#include "ftrain/base/error.h"

namespace ftrain::cluster {
namespace {

constexpr const char* header =
    "source,network,classes,parallelism,rate,batch,one_device,ranks,samples_per_second,fitted";

struct Network {
  const char* name;
  double parameters;  // of the backbone
  double width;       // of the embedding
};
constexpr Network networks[] = {{"r100", 65.16e6, 512}, {"r50", 43.59e6, 512}, {"y1", 1.0e6, 128}};

// How often those trainers read or write every class center in a step, by counting their separate
// ops: normalising (2), the product (1), the two products backward (2), normalising backward (3),
// SGD with momentum and decay (5).
constexpr double passes = 13;

const Network& network_of(const std::string& name) {
  for (const Network& network : networks) {
    if (name == network.name) return network;
  }
  throw DataError("no network '" + name + "': there are r100, r50 and y1");
}

template <class T>
T number(const std::string& text, const std::string& place) {
  T value{};
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) {
    throw DataError(place + ": '" + text + "' is no number");
  }
  return value;
}

}  // namespace

std::vector<Published> read_published(const std::filesystem::path& csv) {
  std::ifstream file(csv);
  std::string line;
  if (!std::getline(file, line) || line != header) {
    throw DataError(csv.string() + ":1: the first line must be \"" + header + "\"");
  }
  std::vector<Published> rows;
  for (int number_of_line = 2; std::getline(file, line); ++number_of_line) {
    const std::string place = csv.string() + ":" + std::to_string(number_of_line);
    std::vector<std::string> cells;
    std::istringstream stream(line);
    for (std::string cell; std::getline(stream, cell, ',');) cells.push_back(cell);
    if (cells.size() != 10) throw DataError(place + ": a row has ten cells");
    Published row;
    row.source = cells[0];
    row.network = cells[1];
    row.classes = number<std::int64_t>(cells[2], place);
    row.parallelism = cells[3];
    row.rate = number<double>(cells[4], place);
    row.batch = number<std::int64_t>(cells[5], place);
    row.one_device = number<double>(cells[6], place);
    row.ranks = number<std::int64_t>(cells[7], place);
    row.samples_per_second = number<double>(cells[8], place);
    row.fitted = cells[9] == "yes";
    network_of(row.network);
    rows.push_back(std::move(row));
  }
  return rows;
}

double predict(const Published& row, const Description& cluster) {
  const Network& network = network_of(row.network);
  const auto batch = static_cast<double>(row.batch), count = static_cast<double>(row.ranks);
  const double width = 4 * network.width;  // bytes
  const double centers = row.rate * static_cast<double>(row.classes) * width;
  const bool replicated = row.parallelism == "data_parallel";
  // Products cost a rank the same at any number of ranks, and so stay with the rest of the step:
  // its classes become fewer as the samples become more. What it reads and writes of centers falls.
  const auto walk = [&](double ranks) {
    return passes * centers / (replicated ? 1 : ranks) / cluster.device.bandwidth;
  };
  Compute compute;
  const double rest = batch / row.one_device - walk(1);
  compute.forward = rest / 3;
  compute.backward = rest * 2 / 3;
  compute.centers = walk(count);

  using Kind = ftrain::Collective;
  std::vector<Exchange> collectives{{Kind::all_reduce, 4 * network.parameters, true}};
  if (replicated) {
    collectives.push_back({Kind::all_reduce, centers, false});
  } else {
    const double features = batch * count * width;
    collectives.push_back({Kind::all_gather, features, false});
    collectives.push_back({Kind::all_gather, 8 * batch * count, false});
    collectives.push_back({Kind::reduce_scatter, features, false});
  }
  const StepTime time = step_time(compute, compute.backward, collectives,
                                  place(row.ranks, cluster.devices), cluster.links, cluster.pace);
  return batch * count / time.total();
}

Deviation deviation(const std::vector<Published>& rows, const Description& cluster) {
  Deviation result;
  for (const Published& row : rows) {
    if (!row.fitted) continue;
    const double error = predict(row, cluster) / row.samples_per_second - 1;
    result.rms += error * error;
    result.worst = std::max(result.worst, std::abs(error));
    ++result.rows;
  }
  if (result.rows > 0) result.rms = std::sqrt(result.rms / result.rows);
  return result;
}

}  // namespace ftrain::cluster
