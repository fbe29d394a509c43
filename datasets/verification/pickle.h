// Pickles of verification sets, read without running anything.
//
// A pickle is a program for a stack machine. This reader knows the instructions that lists, tuples,
// numbers, texts, byte strings and numpy arrays need (protocols 0 to 5, Python 2 and 3), and of all
// Python only the few symbols that build numpy arrays, which it imitates. Any other instruction or
// symbol is refused by its name. Nothing recurses, so depth costs nothing; sizes are checked
// against the file before anything is allocated, and the number of objects has a limit.
//
// Ownership: byte strings are spans into `file`, which must outlive the Pickle; only those that the
// pickle holds as text are copied. Threads: immutable once read. Failure: DataError with the name
// of the file and the byte's offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ftrain {

struct PickleValue {
  enum class Kind : std::uint8_t {
    none,
    boolean,
    integer,
    text,  // UTF-8 in `bytes`
    bytes,
    list,
    tuple,
    dict,    // children: key, value, key, value, ...
    symbol,  // a permitted symbol; `integer` says which
    dtype,   // numpy element type; its name, "u1", in `bytes`
    array,   // numpy array; the elements in `bytes`, children: shape..., and `integer` its dtype
  };
  Kind kind = Kind::none;
  std::int64_t integer = 0;
  std::span<const std::uint8_t> bytes;
  std::vector<std::uint32_t> children;  // indices of values
};

class Pickle {
 public:
  // `name` stands in messages.
  Pickle(std::span<const std::uint8_t> file, std::string name);

  const PickleValue& root() const { return values_[root_]; }
  const PickleValue& operator[](std::uint32_t index) const { return values_[index]; }
  // The element type of an array, e.g. "u1".
  std::string_view dtype(const PickleValue& array) const;

 private:
  friend class PickleMachine;
  std::vector<PickleValue> values_;
  std::deque<std::vector<std::uint8_t>> copies_;  // of byte strings that are no span of the file
  std::uint32_t root_ = 0;
};

}  // namespace ftrain
