#include "core/checkpoint/manifest.h"

#include <xxhash.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "ftrain/base/error.h"
#include "ftrain/base/mapped_file.h"

namespace ftrain {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSeal = "manifest_xxh3_64";

std::string hex(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::uint64_t from_hex(const std::string& text) {
  std::size_t used = 0;
  const std::uint64_t value = std::stoull(text, &used, 16);
  if (used != text.size()) throw std::invalid_argument("no hexadecimal number: " + text);
  return value;
}

std::string seal_of(const Json& body) {
  const std::string text = body.dump();
  return hex(XXH3_64bits(text.data(), text.size()));
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

}  // namespace

std::string Manifest::text() const {
  Json body = {{"format", format}, {"step", step}, {"job", job}};
  body["shards"] = Json::object();
  for (const auto& [name, seal] : shards)
    body["shards"][name] = {{"bytes", seal.bytes}, {"xxh3_64", hex(seal.xxh3)}};
  body["tensors"] = Json::object();
  for (const auto& [name, tensor] : tensors)
    body["tensors"][name] = {{"shard", tensor.shard},
                             {"dtype", safetensors_name(tensor.dtype)},
                             {"shape", tensor.shape.extents()}};
  body["extra"] = Json::object();
  for (const auto& [key, value] : extra) body["extra"][key] = value;
  try {
    body[kSeal] = seal_of(body);
    return body.dump(1) + "\n";
  } catch (const Json::exception& error) {  // text that is no UTF-8
    throw DataError("checkpoint of step " + std::to_string(step) +
                    ": the manifest cannot be written: " + error.what());
  }
}

Manifest Manifest::read(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  const auto bytes = mapped.bytes();
  const std::string where = file.string();
  try {
    Json body = Json::parse(bytes.begin(), bytes.end());
    const int found = body.at("format").get<int>();
    if (found != format)
      throw DataError(where + ": is of format " + std::to_string(found) +
                      ", this program reads format " + std::to_string(format));
    const std::string seal = body.at(kSeal).get<std::string>();
    body.erase(kSeal);
    if (seal != seal_of(body))
      throw DataError(where + ": is damaged: its content does not match its checksum");
    Manifest result;
    result.step = body.at("step").get<std::int64_t>();
    result.job = body.at("job").get<std::string>();
    for (const auto& [name, shard] : body.at("shards").items()) {
      if (!is_plain_name(name))
        throw DataError(where + ": '" + name + "' is no file name of a shard");
      result.shards[name] = {shard.at("bytes").get<std::uint64_t>(),
                             from_hex(shard.at("xxh3_64").get<std::string>())};
    }
    for (const auto& [name, tensor] : body.at("tensors").items()) {
      const Tensor entry{tensor.at("shard").get<std::string>(),
                         safetensors_dtype(tensor.at("dtype").get<std::string>(),
                                           where + " tensor '" + name + "'"),
                         Shape(tensor.at("shape").get<std::vector<std::int64_t>>())};
      if (!result.shards.contains(entry.shard))
        throw DataError(where + ": tensor '" + name + "' is in shard '" + entry.shard +
                        "', which is not listed");
      result.tensors[name] = entry;
    }
    for (const auto& [key, value] : body.at("extra").items())
      result.extra[key] = value.get<std::string>();
    return result;
  } catch (const Json::exception& error) {
    throw DataError(where + ": is no valid manifest: " + error.what());
  } catch (const std::logic_error& error) {  // stoull
    throw DataError(where + ": is no valid manifest: " + error.what());
  }
}

}  // namespace ftrain
