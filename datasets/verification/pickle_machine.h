// The stack machine that reads a pickle: its state, and the checks that every access goes through.
// Instructions are in pickle.cpp, imitations of Python's symbols in pickle_numpy.cpp.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/verification/pickle.h"
#include "datasets/verification/pickle_symbols.h"
#include "ftrain/base/error.h"

namespace ftrain {

class PickleMachine {
  using Kind = PickleValue::Kind;
  using Bytes = std::span<const std::uint8_t>;

  // A set of 12,000 images needs about 100,000 values. The limit keeps a hostile file from taking
  // memory many times its own size.
  static constexpr std::size_t kMostValues = 4'000'000;
  static constexpr std::uint32_t kHole = 0xffffffffu;

 public:
  PickleMachine(Pickle& pickle, Bytes file, const std::string& name)
      : pickle_(pickle), file_(file), name_(name) {
    none_ = create({});
    false_ = create({Kind::boolean, 0, {}, {}});
    true_ = create({Kind::boolean, 1, {}, {}});
  }

  std::uint32_t run() {
    for (;;) {
      start_ = at_;
      opcode_ = take(1)[0];
      if (opcode_ == '.') return pop();
      step();
    }
  }

 private:
  static std::string_view as_text(Bytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // A name from the file as a message may print it.
  static std::string printable(std::string_view text) {
    std::string result;
    for (const char c : text.substr(0, 100)) result += c >= ' ' && c <= '~' ? c : '?';
    return result;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(name_ + ": byte " + std::to_string(start_) + ": " + what);
  }
  [[noreturn]] void refuse(const std::string& of = {}) const {
    fail("opcode " + opcode_name(opcode_) + (of.empty() ? "" : " of " + of) +
         " refused: a verification set holds only lists, numbers, byte strings and numpy arrays");
  }

  // Reading the file.
  Bytes take(std::uint64_t count) {
    if (count > file_.size() - at_)
      fail(std::to_string(count) + " bytes are needed, " + std::to_string(file_.size() - at_) +
           " are left: the file is cut short or damaged");
    const Bytes result = file_.subspan(at_, count);
    at_ += count;
    return result;
  }
  std::uint64_t number(std::size_t width) {
    const Bytes bytes = take(width);
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < width; ++i) value |= std::uint64_t{bytes[i]} << (8 * i);
    return value;
  }
  Bytes line() {
    const auto rest = file_.subspan(at_);
    const auto end = std::find(rest.begin(), rest.end(), std::uint8_t{'\n'});
    if (end == rest.end()) fail("a line does not end: the file is cut short or damaged");
    const Bytes result = rest.first(static_cast<std::size_t>(end - rest.begin()));
    at_ += result.size() + 1;
    return result;
  }
  std::int64_t decimal() {
    const std::string_view text = as_text(line());
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      fail("'" + printable(text) + "' is no whole number");
    return value;
  }

  // Values, stack and memo.
  std::uint32_t create(PickleValue value) {
    if (pickle_.values_.size() >= kMostValues)
      fail("more than " + std::to_string(kMostValues) + " objects: this is no verification set");
    pickle_.values_.push_back(std::move(value));
    return static_cast<std::uint32_t>(pickle_.values_.size() - 1);
  }
  PickleValue& value(std::uint32_t index) { return pickle_.values_[index]; }
  void push(std::uint32_t index) { stack_.push_back(index); }
  void push_new(Kind kind, std::int64_t integer = 0, Bytes bytes = {}) {
    push(create({kind, integer, bytes, {}}));
  }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  std::uint32_t top() {
    if (stack_.size() <= floor()) fail("the stack is empty: the file is damaged");
    return stack_.back();
  }
  std::uint32_t pop() {
    const std::uint32_t index = top();
    stack_.pop_back();
    return index;
  }
  std::vector<std::uint32_t> pop_many(std::size_t count) {
    if (stack_.size() - floor() < count) fail("the stack is too short: the file is damaged");
    std::vector<std::uint32_t> items(stack_.end() - static_cast<std::ptrdiff_t>(count),
                                     stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }
  std::vector<std::uint32_t> pop_to_mark() {
    if (marks_.empty()) fail("there is no mark on the stack: the file is damaged");
    std::vector<std::uint32_t> items = pop_many(stack_.size() - marks_.back());
    marks_.pop_back();
    return items;
  }
  void push_sequence(Kind kind, std::vector<std::uint32_t> items) {
    push(create({kind, 0, {}, std::move(items)}));
  }
  PickleValue& top_of_kind(Kind kind, const char* what) {
    PickleValue& target = value(top());
    if (target.kind != kind) fail(opcode_name(opcode_) + " needs " + what + " on the stack");
    return target;
  }
  void put(std::uint64_t slot) {
    const std::uint32_t index = top();
    if (slot >= kMostValues) fail("memo slot " + std::to_string(slot) + " is out of range");
    if (slot >= memo_.size()) memo_.resize(slot + 1, kHole);
    if (memo_[slot] == kHole) ++memo_count_;
    memo_[slot] = index;
  }
  void get(std::uint64_t slot) {
    if (slot >= memo_.size() || memo_[slot] == kHole)
      fail("memo slot " + std::to_string(slot) + " was never filled");
    push(memo_[slot]);
  }
  // One text asked for again and again must not fill the memory: an honest file needs each once.
  Bytes keep(std::vector<std::uint8_t> bytes) {
    copied_ += bytes.size();
    if (copied_ > 4 * file_.size()) fail("its texts are larger than the file itself");
    return pickle_.copies_.emplace_back(std::move(bytes));
  }

  void step();
  Bytes raw_unicode_escape(Bytes line);
  Bytes latin1(Bytes utf8);
  void global(Bytes module, Bytes name);
  void reduce();
  void build();
  const PickleValue& argument(const PickleValue& tuple, std::size_t position, Kind kind,
                              const char* what);
  void fill_array(std::uint32_t array, const PickleValue& shape, std::uint32_t dtype, Bytes data);

  Pickle& pickle_;
  Bytes file_;
  const std::string& name_;
  std::size_t at_ = 0, start_ = 0;
  std::uint8_t opcode_ = 0;
  std::vector<std::uint32_t> stack_, memo_;
  std::vector<std::size_t> marks_;
  std::uint64_t memo_count_ = 0, copied_ = 0;
  std::uint32_t none_ = 0, false_ = 0, true_ = 0;
};

}  // namespace ftrain
