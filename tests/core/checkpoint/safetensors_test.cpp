#include "core/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::path(testing::TempDir()) / ("safetensors_" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& bytes) const {
    const auto path = folder_ / "test.safetensors";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  // A file of this header and this many bytes of data.
  std::filesystem::path write(const std::string& header, std::size_t data) const {
    std::string bytes(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
    return write(bytes + header + std::string(data, 'x'));
  }
  std::string error_of(const std::filesystem::path& path) const {
    try {
      const SafetensorsFile file(path);
    } catch (const DataError& error) {
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path folder_;
};

// What python's safetensors 0.8 wrote for five tensors and one line of metadata.
const char kPython[] =
    "8\001\000\000\000\000\000\000{\042__metadata__\042:{\042made\042:\042by python\042},"
    "\042a\042:{\042dtype\042:\042I64\042,\042shape\042:[2],\042data_offsets\042:[0,16]},"
    "\042s\042:{\042dtype\042:\042F64\042,\042shape\042:[],\042data_offsets\042:[16,24]},"
    "\042b\042:{\042dtype\042:\042F32\042,\042shape\042:[1,3],\042data_offsets\042:[24,36"
    "]},\042h\042:{\042dtype\042:\042F16\042,\042shape\042:[1],\042data_offsets\042:[36,3"
    "8]},\042u\042:{\042dtype\042:\042U8\042,\042shape\042:[3],\042data_offsets\042:[38,4"
    "1]}} \007\000\000\000\000\000\000\000\367\377\377\377\377\377\377\377\000\000\000"
    "\000\000\000\004@\000\000\300\077\000\000\000\300\000\000P@\0008\001\002\003";

template <class T>
std::vector<T> values(const TensorView& tensor) {
  EXPECT_EQ(size_of(tensor.dtype), sizeof(T));
  std::vector<T> result(static_cast<std::size_t>(tensor.shape.elements()));
  std::memcpy(result.data(), tensor.data, tensor.bytes());
  return result;
}

TEST_F(SafetensorsTest, reads_what_python_writes) {
  const SafetensorsFile file(write(std::string(kPython, sizeof kPython - 1)));
  ASSERT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.metadata().at("made"), "by python");
  EXPECT_EQ(file.at("b").dtype, DType::f32);
  EXPECT_EQ(file.at("b").shape, Shape({1, 3}));
  EXPECT_EQ(values<float>(file.at("b")), (std::vector<float>{1.5f, -2.0f, 3.25f}));
  EXPECT_EQ(values<std::int64_t>(file.at("a")), (std::vector<std::int64_t>{7, -9}));
  EXPECT_EQ(values<std::uint8_t>(file.at("u")), (std::vector<std::uint8_t>{1, 2, 3}));
  EXPECT_EQ(file.at("h").dtype, DType::f16);
  EXPECT_EQ(values<std::uint16_t>(file.at("h")), (std::vector<std::uint16_t>{0x3800}));
  EXPECT_EQ(file.at("s").shape, Shape());
  EXPECT_EQ(values<double>(file.at("s")), (std::vector<double>{2.5}));
  EXPECT_EQ(file.find("c"), nullptr);
}

TEST_F(SafetensorsTest, every_type_comes_back_aligned) {
  alignas(8) const std::uint8_t raw[24] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                           13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
  std::vector<TensorView> tensors;
  for (const DType dtype :
       {DType::u8, DType::i32, DType::i64, DType::f16, DType::bf16, DType::f32, DType::f64})
    tensors.push_back({std::string(name_of(dtype)) + ".weight", dtype, Shape({1, 3}), raw});
  tensors.push_back({"none", DType::f32, Shape({0, 512}), nullptr});
  const auto path = folder_ / "all.safetensors";
  const FileSeal seal = write_safetensors(path, tensors, {{"key", "v\"a\\l\n\u00fc"}});
  EXPECT_EQ(seal.bytes, std::filesystem::file_size(path));
  const SafetensorsFile file(path);
  EXPECT_EQ(seal, seal_of(MappedFile(path).bytes()));
  EXPECT_EQ(seal, seal_of(MappedFile(path)));
  ASSERT_EQ(file.tensors().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("key"), "v\"a\\l\n\u00fc");
  for (const TensorView& written : tensors) {
    const TensorView& read = file.at(written.name);
    EXPECT_EQ(read.dtype, written.dtype);
    EXPECT_EQ(read.shape, written.shape);
    if (written.bytes() == 0) continue;
    EXPECT_EQ(std::memcmp(read.data, written.data, written.bytes()), 0) << written.name;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(read.data) % size_of(read.dtype), 0u) << read.name;
  }
}

TEST_F(SafetensorsTest, damaged_files_are_refused_with_the_reason) {
  const std::string python(kPython, sizeof kPython - 1);
  EXPECT_EQ(error_of(write(python)), "no error");
  for (std::size_t length = 0; length < python.size(); ++length)
    EXPECT_NE(error_of(write(python.substr(0, length))), "no error") << length;
  EXPECT_THAT(error_of(write(python.substr(0, python.size() - 1))), HasSubstr("cut short"));
  EXPECT_THAT(error_of(write(python + "x")), HasSubstr("1 bytes follow the last tensor"));
  EXPECT_THAT(error_of(write(std::string(8, '\377'))), HasSubstr("18446744073709551615 bytes"));
  EXPECT_THAT(error_of(write("abc")), HasSubstr("is no safetensors file: it has 3 bytes"));
  EXPECT_THAT(error_of(write("{\"a\":", 0)), HasSubstr("no valid JSON"));
  EXPECT_THAT(error_of(write("[]", 0)), HasSubstr("no JSON object"));
  EXPECT_THAT(error_of(write(std::string(1'000'000, '['), 0)), HasSubstr("no valid JSON"));
  EXPECT_THAT(error_of(folder_ / "absent"), HasSubstr("absent: cannot open"));
}

TEST_F(SafetensorsTest, headers_that_lie_are_refused_with_the_tensor) {
  const auto tensor = [](const std::string& name, const std::string& dtype,
                         const std::string& shape, const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
  };
  EXPECT_EQ(error_of(write("{" + tensor("w", "F32", "[2]", "[0,8]") + "}", 8)), "no error");
  EXPECT_THAT(error_of(write("{" + tensor("w", "F8", "[2]", "[0,2]") + "}", 2)),
              HasSubstr("tensor 'w': element type 'F8' is not one of F64, F32"));
  EXPECT_THAT(error_of(write("{" + tensor("w", "F32", "[3]", "[0,8]") + "}", 8)),
              HasSubstr("tensor 'w' has 8 bytes, its shape [3] needs 12"));
  EXPECT_THAT(error_of(write("{" + tensor("w", "F32", "[2]", "[8,0]") + "}", 8)),
              HasSubstr("'data_offsets', a begin and an end"));
  EXPECT_THAT(error_of(write("{" + tensor("w", "F32", "[-2]", "[0,8]") + "}", 8)),
              HasSubstr("'shape', a list of whole numbers"));
  EXPECT_THAT(
      error_of(write("{" + tensor("w", "F32", "[4611686018427387904,16]", "[0,8]") + "}", 8)),
      HasSubstr("larger than any file"));
  EXPECT_THAT(error_of(write("{" + tensor("v", "F32", "[1]", "[0,4]") + "," +
                                 tensor("w", "F32", "[1]", "[8,12]") + "}",
                             12)),
              HasSubstr("tensor 'w' begins at byte 8 of the data, expected 4"));
  EXPECT_THAT(error_of(write("{" + tensor("v", "F32", "[2]", "[0,8]") + "," +
                                 tensor("w", "F32", "[1]", "[4,8]") + "}",
                             8)),
              HasSubstr("tensor 'w' begins at byte 4"));
  EXPECT_THAT(error_of(write("{\"w\":3}", 0)), HasSubstr("'w' is described by no JSON object"));
}

TEST_F(SafetensorsTest, an_absent_tensor_has_near_names) {
  const float one = 1;
  const auto path = folder_ / "near.safetensors";
  const std::vector<TensorView> tensors{{"conv1.weight", DType::f32, Shape({1}), &one}};
  write_safetensors(path, tensors);
  const SafetensorsFile file(path);
  try {
    file.at("conv1.weigth");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("holds no tensor 'conv1.weigth'"));
    EXPECT_THAT(error.what(), HasSubstr("Did you mean 'conv1.weight'"));
  }
}

TEST_F(SafetensorsTest, names_must_be_unique) {
  const float one = 1;
  const std::vector<TensorView> tensors{{"a", DType::f32, Shape({1}), &one},
                                        {"a", DType::f32, Shape({1}), &one}};
  EXPECT_THROW(write_safetensors(folder_ / "twice.safetensors", tensors), DataError);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "twice.safetensors"));
}

}  // namespace
}  // namespace ftrain
