#include "datasets/verification/pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "datasets/verification/pickle_samples.h"
#include "ftrain/base/error.h"

namespace ftrain {
namespace {

using samples::whole;
using testing::HasSubstr;

std::span<const std::uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string error_of(const std::string& text) {
  try {
    const Pickle pickle(bytes_of(text), "test.bin");
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Pickle, a_system_call_is_refused_by_name) {
  EXPECT_THAT(error_of("cposix\nsystem\n(S'touch /tmp/x'\ntR."),
              HasSubstr("test.bin: byte 0: opcode GLOBAL of posix.system refused"));
  EXPECT_THAT(error_of(whole("\200\004\214\010builtins\214\004eval\223\214\0011\205R.")),
              HasSubstr("byte 18: opcode STACK_GLOBAL of builtins.eval refused"));
}

TEST(Pickle, every_other_instruction_is_refused_by_name) {
  const std::pair<const char*, const char*> refused[] = {{"0", "POP"},
                                                         {"1", "POP_MARK"},
                                                         {"2", "DUP"},
                                                         {"F1\n", "FLOAT"},
                                                         {"G", "BINFLOAT"},
                                                         {"L1L\n", "LONG"},
                                                         {"S'a'\n", "STRING"},
                                                         {"Pa\n", "PERSID"},
                                                         {"Q", "BINPERSID"},
                                                         {"ios\nsystem\n", "INST"},
                                                         {"o", "OBJ"},
                                                         {"d", "DICT"},
                                                         {"\x81", "NEWOBJ"},
                                                         {"\x82", "EXT1"},
                                                         {"\x83", "EXT2"},
                                                         {"\x84", "EXT4"},
                                                         {"\x8a", "LONG1"},
                                                         {"\x8b", "LONG4"},
                                                         {"\x8d", "BINUNICODE8"},
                                                         {"\x8f", "EMPTY_SET"},
                                                         {"\x90", "ADDITEMS"},
                                                         {"\x91", "FROZENSET"},
                                                         {"\x92", "NEWOBJ_EX"},
                                                         {"\x97", "NEXT_BUFFER"},
                                                         {"\x98", "READONLY_BUFFER"},
                                                         {"\xff", "0xff"}};
  for (const auto& [text, name] : refused)
    EXPECT_THAT(error_of(text), HasSubstr("byte 0: opcode " + std::string(name) + " refused"));
}

TEST(Pickle, only_permitted_symbols_can_be_called) {
  EXPECT_THAT(error_of("cnumpy\nndarray\n(tR."),
              HasSubstr("opcode REDUCE of numpy.ndarray refused"));
  EXPECT_THAT(error_of("K\001(tR."), HasSubstr("opcode REDUCE of an object that is no function"));
  EXPECT_THAT(error_of("]}b."), HasSubstr("opcode BUILD of an object that is no numpy array"));
  EXPECT_THAT(error_of("c_codecs\nencode\n(Va\nVrot13\ntR."),
              HasSubstr("_codecs.encode to rot13 refused"));
}

TEST(Pickle, every_cut_is_noticed) {
  for (const auto& sample : samples::all())
    for (std::size_t length = 0; length < sample.bytes.size(); ++length)
      EXPECT_NE(error_of(sample.bytes.substr(0, length)), "no error")
          << sample.name << " cut to " << length;
}

TEST(Pickle, no_changed_byte_does_harm) {
  // Whatever the change, the file is read or refused with an offset; the sanitizers watch the rest.
  for (const auto& sample : samples::all())
    for (std::size_t at = 0; at < sample.bytes.size(); ++at)
      for (const int change : {0x01, 0x10, 0x80, 0xff}) {
        std::string damaged = sample.bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ change);
        const std::string error = error_of(damaged);
        EXPECT_THAT(error, testing::AnyOf("no error", HasSubstr("test.bin: byte ")));
      }
}

TEST(Pickle, sizes_beyond_the_file_are_refused_before_anything_is_allocated) {
  EXPECT_THAT(error_of(whole("\216\377\377\377\377\377\377\377\377")),
              HasSubstr("byte 0: 18446744073709551615 bytes are needed, 0 are left"));
  EXPECT_THAT(error_of(whole("B\377\377\377\377a")), HasSubstr("4294967295 bytes are needed"));
  EXPECT_THAT(error_of(whole("\225\377\377\377\377\377\377\377\177")), HasSubstr("a frame of"));
  EXPECT_THAT(error_of(whole("Nr\377\377\377\377.")), HasSubstr("memo slot 4294967295"));
}

TEST(Pickle, holes_of_the_memo_and_an_empty_stack_are_refused) {
  EXPECT_THAT(error_of("h\005."), HasSubstr("byte 0: memo slot 5 was never filled"));
  EXPECT_THAT(error_of(whole("Nq\005h\004.")), HasSubstr("byte 3: memo slot 4 was never filled"));
  EXPECT_THAT(error_of("g-1\n."), HasSubstr("was never filled"));
  EXPECT_THAT(error_of("."), HasSubstr("the stack is empty"));
  EXPECT_THAT(error_of("N(."), HasSubstr("the stack is empty"));
  EXPECT_THAT(error_of("t."), HasSubstr("there is no mark"));
  EXPECT_THAT(error_of("Na."), HasSubstr("the stack is empty"));
  EXPECT_THAT(error_of("NNa."), HasSubstr("APPEND needs a list"));
}

TEST(Pickle, depth_costs_nothing) {
  // A million nested tuples, and a list that holds itself.
  EXPECT_EQ(error_of(")" + std::string(1'000'000, '\x85') + "."), "no error");
  EXPECT_EQ(error_of(whole("]q\000h\000a.")), "no error");
}

TEST(Pickle, a_file_of_nothing_but_objects_is_refused) {
  EXPECT_THAT(error_of(std::string(5'000'000, ']')), HasSubstr("more than 4000000 objects"));
}

TEST(Pickle, one_text_encoded_again_and_again_is_refused) {
  std::string bomb = "c_codecs\nencode\np0\n(V" + std::string(10000, 'a') + "\nVlatin1\ntp1\nR";
  for (int i = 0; i < 1000; ++i) bomb += "g0\ng1\nR";
  EXPECT_THAT(error_of(bomb + "."), HasSubstr("texts are larger than the file itself"));
}

TEST(Pickle, arrays_whose_shape_does_not_fit_their_bytes_are_refused) {
  const auto array = [](const std::string& type, const std::string& shape) {
    return "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntNtR(I1\n(" + shape +
           "tcnumpy\ndtype\n(V" + type + "\ntRI00\nC\004abcdtb.";
  };
  EXPECT_EQ(error_of(array("u1", "I4\nI1\n")), "no error");
  EXPECT_THAT(error_of(array("u1", "I5\n")), HasSubstr("shape needs 5 bytes or more, it has 4"));
  EXPECT_THAT(error_of(array("u1", "I-4\n")), HasSubstr("shape holds no sizes"));
  EXPECT_THAT(error_of(array("u1", "I4\nI4611686018427387904\nI4611686018427387904\n")),
              HasSubstr("shape needs"));
  EXPECT_THAT(error_of(array("f4", "I1\n")), HasSubstr("an array of 'f4'"));
  EXPECT_THAT(error_of(array("O8", "I4\n")), HasSubstr("an array of 'O8'"));
}

}  // namespace
}  // namespace ftrain
