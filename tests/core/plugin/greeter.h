// A small interface for the plugins of this folder's tests.
#pragma once

#include <string>

#include "ftrain/config/keys.h"

struct Greeter : ftrain::Configurable {
  static constexpr const char* kind = "greeter";
  virtual std::string greet() = 0;
};

struct Leaver : ftrain::Configurable {
  static constexpr const char* kind = "leaver";
};
