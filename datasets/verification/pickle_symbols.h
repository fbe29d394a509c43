// Names of pickle instructions, and the symbols that a verification set may use.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace ftrain {

// "REDUCE" for 'R'; "0xff" for a byte that is no instruction.
std::string opcode_name(std::uint8_t opcode);

enum class PickleSymbol : std::uint8_t {
  reconstruct,  // numpy's array, before its state is set
  scalar,       // numpy scalar
  ndarray,
  dtype,
  boolean,      // numpy.bool_
  from_buffer,  // numpy's array in protocol 5
  encode,       // _codecs.encode: how Python 3 writes bytes in protocols 0 to 2
};

std::optional<PickleSymbol> find_symbol(std::string_view module, std::string_view name);
std::string_view name_of(PickleSymbol symbol);

}  // namespace ftrain
