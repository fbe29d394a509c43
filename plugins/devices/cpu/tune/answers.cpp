#include "plugins/devices/cpu/tune/answers.h"

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.hpp>

#include "core/base/error.h"
#include "core/graph/opdef.h"
#include "core/plugin/abi.h"
#include "plugins/devices/cpu/kernels.h"
#include "plugins/devices/cpu/processor.h"

namespace ftrain::cpu {
namespace {

using Json = nlohmann::ordered_json;

// An empty text is a file without answers.
Json parsed(std::string_view text) {
  if (text.empty()) return Json::object();
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw DataError("is not a JSON object");
  return json;
}

}  // namespace

Circumstances circumstances_of(const KernelEnvironment& environment) {
  const dnnl_version_t* version = dnnl::version();
  const KernelOptions options = options_of(environment);
  std::string rest = "oneDNN " + std::to_string(version->major) + "." +
                     std::to_string(version->minor) + "." + std::to_string(version->patch) +
                     ", ftrain " FTRAIN_VERSION " " FTRAIN_BUILD ", " + environment.isa + ", " +
                     std::to_string(environment.threads) + " threads";
  if (options.winograd) rest += ", winograd";
  if (options.bf16) rest += ", bf16";
  return {processor().kind, std::move(rest)};
}

std::string problem_of(const Node& node) {
  std::string text(node.op->name);
  if (const std::string attributes = node.attributes.text(); !attributes.empty()) {
    text += " " + attributes;
  }
  text += " (";
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (i > 0) text += ", ";
    text += node.inputs[i].valid() ? node.input(i).text() : "none";
  }
  text += ") ->";
  for (const TensorType& output : node.outputs) text += " " + output.text();
  return text;
}

std::filesystem::path answers_file() {
  const auto variable = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
  };
  constexpr const char* name = "kernels.json";
  if (const auto folder = variable("FTRAIN_CACHE"); !folder.empty()) return folder / name;
  if (const auto folder = variable("XDG_CACHE_HOME"); folder.is_absolute()) {
    return folder / "ftrain" / name;
  }
  if (const auto home = variable("HOME"); !home.empty()) return home / ".cache" / "ftrain" / name;
  return {};
}

std::string text_of(const Answers& answers, const Circumstances& circumstances,
                    std::string_view text) {
  Json json = parsed(text);
  Json& section = json[circumstances.processor][circumstances.rest];
  for (const auto& [problem, answer] : answers) {
    Json seconds = Json::object();
    for (const auto& [kernel, time] : answer.seconds) seconds[kernel] = time;
    section[problem] = {{"kernel", answer.kernel}, {"seconds", std::move(seconds)}};
  }
  return json.dump(1) + "\n";
}

Answers answers_in(std::string_view text, const Circumstances& circumstances) {
  const Json json = parsed(text);
  Answers answers;
  try {
    if (!json.contains(circumstances.processor)) return answers;
    const Json& sections = json.at(circumstances.processor);
    if (!sections.contains(circumstances.rest)) return answers;
    for (const auto& [problem, entry] : sections.at(circumstances.rest).items()) {
      Answer answer{entry.at("kernel").get<std::string>(), {}};
      for (const auto& [kernel, time] : entry.at("seconds").items()) {
        answer.seconds.emplace_back(kernel, time.get<double>());
      }
      answers.emplace(problem, std::move(answer));
    }
  } catch (const Json::exception& error) {
    throw DataError(std::string("is not a file of measured kernels: ") + error.what());
  }
  return answers;
}

}  // namespace ftrain::cpu
