// Error types of ftrain and the exit code that each one means.
//
// A message says, in this order: where (file:line:column, record, rank), the rule that was broken,
// what came, and the way out. Errors are thrown as values and cross plugins by type, because every
// plugin links the one shared core.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "ftrain/plugin/api.h"

namespace ftrain {

// What a process that ends with an error returns to its shell.
enum class ExitCode : int {
  done = 0,
  user_input = 2,
  data = 3,
  device = 4,
  interrupted = 130,  // by SIGINT
  terminated = 143,   // by SIGTERM
};

class FTRAIN_API Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ~Error() override;
  ExitCode exit_code() const noexcept { return code_; }
  // The type's name as users read it: "ConfigError", "DataError", ...
  virtual std::string_view kind() const noexcept { return "Error"; }

 private:
  ExitCode code_;
};

// A job file, a command line or an option that breaks a rule.
class FTRAIN_API ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message) : Error(ExitCode::user_input, message) {}
  ~ConfigError() override;
  std::string_view kind() const noexcept override { return "ConfigError"; }
};

// A file or record that is missing, damaged or of another format than expected.
class FTRAIN_API DataError : public Error {
 public:
  explicit DataError(const std::string& message) : Error(ExitCode::data, message) {}
  ~DataError() override;
  std::string_view kind() const noexcept override { return "DataError"; }
};

// A plugin that cannot be found, loaded or constructed.
class FTRAIN_API PluginError : public Error {
 public:
  explicit PluginError(const std::string& message) : Error(ExitCode::user_input, message) {}
  ~PluginError() override;
  std::string_view kind() const noexcept override { return "PluginError"; }
};

// Shapes or data types that do not fit an op. Raised while a graph is built, never while it runs.
class FTRAIN_API ShapeError : public Error {
 public:
  explicit ShapeError(const std::string& message) : Error(ExitCode::user_input, message) {}
  ~ShapeError() override;
  std::string_view kind() const noexcept override { return "ShapeError"; }
};

// Out of memory, an unsupported precision, a failing driver.
class FTRAIN_API DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message) : Error(ExitCode::device, message) {}
  ~DeviceError() override;
  std::string_view kind() const noexcept override { return "DeviceError"; }
};

// A device's memory cannot hold what a plan needs.
class FTRAIN_API OutOfMemoryError : public DeviceError {
 public:
  OutOfMemoryError(const std::string& message, std::size_t needed, std::size_t available)
      : DeviceError(message), needed(needed), available(available) {}
  ~OutOfMemoryError() override;

  std::size_t needed, available;  // bytes
};

// A rank that died, disagrees or does not answer.
class FTRAIN_API CommunicationError : public Error {
 public:
  explicit CommunicationError(const std::string& message) : Error(ExitCode::device, message) {}
  ~CommunicationError() override;
  std::string_view kind() const noexcept override { return "CommunicationError"; }
};

// Another rank failed, and this one only heard of it.
class FTRAIN_API PeerError : public CommunicationError {
 public:
  explicit PeerError(const std::string& message) : CommunicationError(message) {}
  ~PeerError() override;
};

}  // namespace ftrain
