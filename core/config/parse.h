// TOML text to the tree. Private to core/config; parse.cpp is the one file that sees TOML++.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/config/tree.h"

namespace ftrain {

// ConfigError with file:line:column and the parser's own words on a syntax error.
std::shared_ptr<Table::Node> parse_toml(std::string_view text, const std::filesystem::path& file);

// The value of a --set argument: TOML, or a bare word, which is a string.
TreeValue parse_set_value(std::string_view text, const Place& place);

}  // namespace ftrain
