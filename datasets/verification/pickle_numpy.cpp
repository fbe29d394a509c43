// What the permitted symbols of Python and numpy do, imitated.
#include "datasets/verification/pickle_machine.h"

namespace ftrain {
namespace {

using Bytes = std::span<const std::uint8_t>;

void append_utf8(std::vector<std::uint8_t>& out, std::uint32_t c) {
  const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<std::uint8_t>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6);
    put(0x80 | (c & 63));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12);
    put(0x80 | (c >> 6 & 63));
    put(0x80 | (c & 63));
  } else {
    put(0xf0 | (c >> 18 & 7));
    put(0x80 | (c >> 12 & 63));
    put(0x80 | (c >> 6 & 63));
    put(0x80 | (c & 63));
  }
}

}  // namespace

std::span<const std::uint8_t> PickleMachine::raw_unicode_escape(Bytes line) {
  std::vector<std::uint8_t> out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    std::uint32_t c = line[i];
    if (c == '\\' && i + 1 < line.size() && (line[i + 1] == 'u' || line[i + 1] == 'U')) {
      const std::size_t digits = line[i + 1] == 'u' ? 4 : 8;
      const char* first = reinterpret_cast<const char*>(line.data()) + i + 2;
      if (line.size() - i - 2 < digits) fail("a text ends within an escape");
      const auto [end, error] = std::from_chars(first, first + digits, c, 16);
      if (error != std::errc() || end != first + digits || c > 0x10ffff)
        fail("a text holds an invalid escape");
      i += digits + 1;
    }
    append_utf8(out, c);
  }
  return keep(std::move(out));
}

// Text of the characters 0 to 255, as the bytes that it stands for.
std::span<const std::uint8_t> PickleMachine::latin1(Bytes utf8) {
  std::vector<std::uint8_t> out;
  out.reserve(utf8.size());
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const std::uint8_t c = utf8[i];
    if (c < 0x80) {
      out.push_back(c);
    } else if ((c == 0xc2 || c == 0xc3) && i + 1 < utf8.size() && (utf8[i + 1] & 0xc0) == 0x80) {
      out.push_back(static_cast<std::uint8_t>((c & 3) << 6 | (utf8[++i] & 63)));
    } else {
      fail("a text that stands for bytes holds another character than 0 to 255");
    }
  }
  return keep(std::move(out));
}

void PickleMachine::global(Bytes module, Bytes name) {
  const auto symbol = find_symbol(as_text(module), as_text(name));
  if (!symbol) refuse(printable(as_text(module)) + "." + printable(as_text(name)));
  push_new(Kind::symbol, static_cast<std::int64_t>(*symbol));
}

const PickleValue& PickleMachine::argument(const PickleValue& tuple, std::size_t position,
                                           Kind kind, const char* what) {
  if (position >= tuple.children.size() || value(tuple.children[position]).kind != kind)
    fail(opcode_name(opcode_) + " needs " + what + " as argument " + std::to_string(position + 1));
  return value(tuple.children[position]);
}

void PickleMachine::reduce() {
  const std::uint32_t arguments_index = pop(), callee_index = pop();
  const PickleValue& callee = value(callee_index);
  if (callee.kind != Kind::symbol) refuse("an object that is no function");
  const PickleSymbol symbol = static_cast<PickleSymbol>(callee.integer);
  if (value(arguments_index).kind != Kind::tuple) fail("REDUCE needs a tuple of arguments");
  if (value(arguments_index).children.size() > 8) fail("REDUCE of more than 8 arguments");
  // A copy: creating values moves them.
  const PickleValue arguments = value(arguments_index);
  switch (symbol) {
    case PickleSymbol::reconstruct:
      if (const PickleValue& type = argument(arguments, 0, Kind::symbol, "numpy.ndarray");
          static_cast<PickleSymbol>(type.integer) != PickleSymbol::ndarray)
        fail("only numpy.ndarray can be reconstructed");
      push_new(Kind::array, -1);
      return;
    case PickleSymbol::dtype: {  // Python 2 writes the name as a byte string
      const bool python2 =
          !arguments.children.empty() && value(arguments.children[0]).kind == Kind::bytes;
      push_new(Kind::dtype, 0,
               argument(arguments, 0, python2 ? Kind::bytes : Kind::text, "a type's name").bytes);
      return;
    }
    case PickleSymbol::scalar: {
      const PickleValue& dtype = argument(arguments, 0, Kind::dtype, "a dtype");
      const PickleValue& data = argument(arguments, 1, Kind::bytes, "bytes");
      if (as_text(dtype.bytes) != "b1" || data.bytes.size() != 1)
        refuse("a numpy scalar of type '" + printable(as_text(dtype.bytes)) + "'");
      push(data.bytes[0] != 0 ? true_ : false_);
      return;
    }
    case PickleSymbol::boolean: {
      if (arguments.children.size() == 1) {
        const PickleValue& from = value(arguments.children[0]);
        if (from.kind == Kind::boolean || from.kind == Kind::integer) {
          push(from.integer != 0 ? true_ : false_);
          return;
        }
      }
      fail("numpy.bool_ needs a bool");
    }
    case PickleSymbol::from_buffer: {
      const Bytes data = argument(arguments, 0, Kind::bytes, "bytes").bytes;
      argument(arguments, 1, Kind::dtype, "a dtype");
      const PickleValue shape = argument(arguments, 2, Kind::tuple, "a shape");
      push_new(Kind::array, -1);
      fill_array(top(), shape, arguments.children[1], data);
      return;
    }
    case PickleSymbol::encode: {
      const Bytes text = argument(arguments, 0, Kind::text, "a text").bytes;
      const std::string_view codec = as_text(argument(arguments, 1, Kind::text, "a codec").bytes);
      if (codec != "latin1" && codec != "latin-1") refuse("_codecs.encode to " + printable(codec));
      push_new(Kind::bytes, 0, latin1(text));
      return;
    }
    case PickleSymbol::ndarray:
      break;
  }
  refuse("numpy.ndarray");
}

void PickleMachine::build() {
  const std::uint32_t state_index = pop();
  const std::uint32_t target = top();
  const PickleValue& state = value(state_index);
  if (value(target).kind == Kind::dtype) {
    // Byte order and alignment: without meaning for elements of one byte, the only ones read.
    if (state.kind != Kind::tuple) fail("BUILD of a dtype needs a tuple");
    return;
  }
  if (value(target).kind != Kind::array) refuse("an object that is no numpy array");
  if (state.kind != Kind::tuple || state.children.size() != 5)
    fail("BUILD of an array needs version, shape, dtype, order and data");
  const PickleValue& shape = argument(state, 1, Kind::tuple, "a shape");
  argument(state, 2, Kind::dtype, "a dtype");
  const Bytes data = argument(state, 4, Kind::bytes, "bytes").bytes;
  fill_array(target, shape, state.children[2], data);
}

void PickleMachine::fill_array(std::uint32_t array, const PickleValue& shape, std::uint32_t dtype,
                               Bytes data) {
  const std::string_view type = as_text(value(dtype).bytes);
  if (type != "u1" && type != "b1" && type != "uint8" && type != "bool")
    fail("an array of '" + printable(type) + "': only u1 and b1 are read");
  if (shape.children.size() > 32) fail("an array of more than 32 dimensions");
  std::uint64_t elements = 1;
  for (const std::uint32_t extent : shape.children) {
    const PickleValue& n = value(extent);
    if (n.kind != Kind::integer || n.integer < 0) fail("an array's shape holds no sizes");
    const std::uint64_t size = static_cast<std::uint64_t>(n.integer);
    // Cut off beyond the data, long before the product could overflow.
    elements = size > data.size() ? size : elements * size;
    if (elements > data.size()) break;
  }
  if (elements != data.size())
    fail("an array's shape needs " + std::to_string(elements) + " bytes or more, it has " +
         std::to_string(data.size()));
  PickleValue& target = value(array);
  target.integer = dtype;
  target.bytes = data;
  target.children = shape.children;
}

}  // namespace ftrain
