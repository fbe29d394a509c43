#include "datasets/verification/pickle.h"

#include "datasets/verification/pickle_machine.h"

namespace ftrain {

void PickleMachine::step() {
  switch (opcode_) {
    case 0x80:  // PROTO
      if (const auto protocol = number(1); protocol > 5)
        fail("pickle protocol " + std::to_string(protocol) + ", the newest known is 5");
      return;
    case 0x95:  // FRAME: only a hint for readers of streams
      if (const auto size = number(8); size > file_.size() - at_)
        fail("a frame of " + std::to_string(size) + " bytes, " +
             std::to_string(file_.size() - at_) + " are left: the file is cut short or damaged");
      return;
    case '(':
      marks_.push_back(stack_.size());
      return;
    case ']':
      push_new(Kind::list);
      return;
    case '}':
      push_new(Kind::dict);
      return;
    case ')':
      push_new(Kind::tuple);
      return;
    case 'l':
      push_sequence(Kind::list, pop_to_mark());
      return;
    case 't':
      push_sequence(Kind::tuple, pop_to_mark());
      return;
    case 0x85:
    case 0x86:
    case 0x87:
      push_sequence(Kind::tuple, pop_many(opcode_ - 0x84u));
      return;
    case 'a': {
      const std::uint32_t item = pop();
      top_of_kind(Kind::list, "a list").children.push_back(item);
      return;
    }
    case 'e': {
      const auto items = pop_to_mark();
      auto& children = top_of_kind(Kind::list, "a list").children;
      children.insert(children.end(), items.begin(), items.end());
      return;
    }
    case 's': {
      const auto items = pop_many(2);
      auto& children = top_of_kind(Kind::dict, "a dictionary").children;
      children.insert(children.end(), items.begin(), items.end());
      return;
    }
    case 'u': {
      const auto items = pop_to_mark();
      if (items.size() % 2 != 0) fail("SETITEMS needs keys and values in pairs");
      auto& children = top_of_kind(Kind::dict, "a dictionary").children;
      children.insert(children.end(), items.begin(), items.end());
      return;
    }
    case 'N':
      push(none_);
      return;
    case 0x88:
      push(true_);
      return;
    case 0x89:
      push(false_);
      return;
    case 'I': {  // also how protocols 0 and 1 write True and False
      const std::string_view text =
          as_text(file_.subspan(at_, std::min<std::size_t>(3, file_.size() - at_)));
      const std::int64_t integer = decimal();
      if (text == "01\n" || text == "00\n")
        push(integer != 0 ? true_ : false_);
      else
        push_new(Kind::integer, integer);
      return;
    }
    case 'J':
      push_new(Kind::integer, static_cast<std::int32_t>(number(4)));
      return;
    case 'K':
      push_new(Kind::integer, static_cast<std::int64_t>(number(1)));
      return;
    case 'M':
      push_new(Kind::integer, static_cast<std::int64_t>(number(2)));
      return;
    case 'C':
    case 'U':
      push_new(Kind::bytes, 0, take(number(1)));
      return;
    case 'B':
    case 'T':
      push_new(Kind::bytes, 0, take(number(4)));
      return;
    case 0x8e:
    case 0x96:
      push_new(Kind::bytes, 0, take(number(8)));
      return;
    case 0x8c:
      push_new(Kind::text, 0, take(number(1)));
      return;
    case 'X':
      push_new(Kind::text, 0, take(number(4)));
      return;
    case 'V':
      push_new(Kind::text, 0, raw_unicode_escape(line()));
      return;
    case 'q':
      put(number(1));
      return;
    case 'r':
      put(number(4));
      return;
    case 'p':
      put(static_cast<std::uint64_t>(decimal()));
      return;
    case 0x94:
      put(memo_count_);
      return;
    case 'h':
      get(number(1));
      return;
    case 'j':
      get(number(4));
      return;
    case 'g':
      get(static_cast<std::uint64_t>(decimal()));
      return;
    case 'c': {
      const Bytes module = line();
      global(module, line());
      return;
    }
    case 0x93: {
      const auto names = pop_many(2);
      for (const std::uint32_t name : names)
        if (value(name).kind != Kind::text) fail("STACK_GLOBAL needs two texts on the stack");
      global(value(names[0]).bytes, value(names[1]).bytes);
      return;
    }
    case 'R':
      reduce();
      return;
    case 'b':
      build();
      return;
    default:
      refuse();
  }
}

Pickle::Pickle(std::span<const std::uint8_t> file, std::string name) {
  root_ = PickleMachine(*this, file, name).run();
}

std::string_view Pickle::dtype(const PickleValue& array) const {
  if (array.kind != PickleValue::Kind::array || array.integer < 0) return {};
  const auto name = values_[static_cast<std::size_t>(array.integer)].bytes;
  return {reinterpret_cast<const char*>(name.data()), name.size()};
}

}  // namespace ftrain
