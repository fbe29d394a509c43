#include <gtest/gtest.h>

#include "ftrain/base/dtype.h"
#include "ftrain/base/error.h"
#include "ftrain/base/shape.h"

namespace ftrain {
namespace {

TEST(DType, KnowsSizesAndNames) {
  EXPECT_EQ(name_of(DType::bf16), "bf16");
  EXPECT_EQ(name_of(DType::u8), "u8");
  EXPECT_EQ(size_of(DType::f16), 2u);
  EXPECT_EQ(size_of(DType::i64), 8u);
  EXPECT_EQ(dtype_of<double>, DType::f64);
  EXPECT_EQ(dtype_of<std::int32_t>, DType::i32);
  EXPECT_FALSE(is_floating(DType::i32));
  EXPECT_TRUE(is_floating(DType::bf16));
}

TEST(Shape, CountsAndPrints) {
  const Shape images{64, 3, 112, 112};
  EXPECT_EQ(images.elements(), 64 * 3 * 112 * 112);
  EXPECT_EQ(images.text(), "[64, 3, 112, 112]");
  EXPECT_EQ(Shape().elements(), 1);
  EXPECT_EQ(Shape().text(), "[]");
  EXPECT_EQ((Shape{0, 7}).elements(), 0);
  EXPECT_NE(images, (Shape{64, 3, 112}));
}

TEST(TensorType, PrintsItsLayout) {
  TensorType type{DType::f32, {64, 64, 56, 56}};
  EXPECT_EQ(type.text(), "f32[64, 64, 56, 56]");
  EXPECT_EQ(type.bytes(), 64u * 64 * 56 * 56 * 4);
  const TensorType plain = type;
  type.layout = "aBcd16b";
  EXPECT_EQ(type.text(), "f32[64, 64, 56, 56]:aBcd16b");
  EXPECT_EQ(type.bytes(), plain.bytes());
  EXPECT_NE(type, plain);
}

TEST(Error, KnowsItsKindAndExitCode) {
  const auto check = [](const Error& error, std::string_view kind, ExitCode code) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_EQ(error.exit_code(), code);
    EXPECT_STREQ(error.what(), "text");
  };
  check(ConfigError("text"), "ConfigError", ExitCode::user_input);
  check(PluginError("text"), "PluginError", ExitCode::user_input);
  check(ShapeError("text"), "ShapeError", ExitCode::user_input);
  check(DataError("text"), "DataError", ExitCode::data);
  check(DeviceError("text"), "DeviceError", ExitCode::device);
  check(CommunicationError("text"), "CommunicationError", ExitCode::device);
}

}  // namespace
}  // namespace ftrain
