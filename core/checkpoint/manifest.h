// manifest.json of a checkpoint: what its shards hold, sealed by checksums, itself included.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/checkpoint/safetensors.h"
#include "ftrain/base/dtype.h"
#include "ftrain/base/shape.h"

namespace ftrain {

struct Manifest {
  static constexpr int format = 1;
  static constexpr const char* file_name = "manifest.json";

  struct Tensor {
    std::string shard;  // its file's name
    DType dtype = DType::f32;
    Shape shape;
  };

  std::int64_t step = 0;
  std::string job;
  std::map<std::string, FileSeal> shards;  // by file name
  std::map<std::string, Tensor, std::less<>> tensors;
  std::map<std::string, std::string> extra;

  std::string text() const;
  // DataError naming the file when it is absent, damaged or of another format.
  static Manifest read(const std::filesystem::path& file);
};

}  // namespace ftrain
