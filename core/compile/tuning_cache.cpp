#include "core/compile/tuning_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "ftrain/base/error.h"
#include "ftrain/graph/opdef.h"

namespace ftrain {
namespace {

using Json = nlohmann::ordered_json;

// An empty text is a file without answers.
Json parsed(std::string_view text) {
  if (text.empty()) return Json::object();
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw DataError("is not a JSON object");
  return json;
}

}  // namespace

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

std::filesystem::path cache_file(const std::string& name) {
  const auto variable = [](const char* key) -> std::filesystem::path {
    const char* value = std::getenv(key);
    return value != nullptr ? value : "";
  };
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

std::string content_of(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

FileLock::FileLock(const std::filesystem::path& file) {
  std::error_code ignored;
  std::filesystem::create_directories(file.parent_path(), ignored);
  const std::filesystem::path lock = std::filesystem::path(file) += ".lock";
  descriptor_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    failure_ = errno;
    return;
  }
  while (::flock(descriptor_, LOCK_EX) != 0) {
    if (errno == EINTR) continue;
    failure_ = errno;
    return;
  }
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace ftrain
