// A number with a name, as reports hand it on.
#pragma once

#include <string>

namespace ftrain {

struct NamedValue {
  std::string name;
  double value = 0;
  bool operator==(const NamedValue&) const = default;
};

}  // namespace ftrain
