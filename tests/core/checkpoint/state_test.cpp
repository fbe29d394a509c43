// First values, given weights and checkpoints of states in f32 and bf16.
#include "core/checkpoint/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <vector>

#include "ftrain/base/error.h"

namespace ftrain {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::int64_t classes = 50, width = 6;

// States as bytes.
class Bytes final : public StateStore {
 public:
  explicit Bytes(std::vector<StateSpec> specs) {
    for (StateSpec& spec : specs) {
      const std::size_t bytes = spec.type.bytes();
      values_[spec.name].resize(bytes);
      entries_.push_back({std::move(spec), bytes});
    }
  }
  const std::vector<Entry>& entries() const override { return entries_; }
  bool has(std::string_view name) const override { return values_.contains(std::string(name)); }
  void read(std::string_view name, void* out) const override {
    const auto& values = values_.at(std::string(name));
    std::memcpy(out, values.data(), values.size());
  }
  void write(std::string_view name, const void* in) override {
    auto& values = values_.at(std::string(name));
    std::memcpy(values.data(), in, values.size());
  }
  template <class T>
  std::vector<T> values(const std::string& name) const {
    std::vector<T> made(values_.at(name).size() / sizeof(T));
    read(name, made.data());
    return made;
  }

 private:
  std::vector<Entry> entries_;
  std::map<std::string, std::vector<std::byte>> values_;
};

StateSpec centers(DType dtype, std::int64_t first = 0, std::int64_t count = classes) {
  return {.name = "centers.weight",
          .type = {dtype, Shape{count, width}},
          .initializer = {Initializer::Kind::normal, 0, 0.01},
          .first_row = first,
          .rows = classes};
}

std::vector<float> widened(const std::vector<BF16>& values) {
  std::vector<float> made;
  for (const BF16 x : values) made.push_back(to_f32(x));
  return made;
}
std::vector<float> rounded(std::vector<float> values) {
  for (float& x : values) x = to_f32(to_bf16(x));
  return values;
}

class States : public testing::Test {
 protected:
  fs::path folder_ = fs::path(testing::TempDir()) / ("ftrain-states-" + std::to_string(::getpid()));
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
};

TEST_F(States, BeginInBf16AsRoundedF32) {
  Bytes f32({centers(DType::f32)}), bf16({centers(DType::bf16)});
  Bytes part({centers(DType::bf16, 20, 7)});
  for (Bytes* store : {&f32, &bf16, &part}) initialize(*store, 3);
  const auto want = rounded(f32.values<float>("centers.weight"));
  EXPECT_EQ(widened(bf16.values<BF16>("centers.weight")), want);
  const auto own = widened(part.values<BF16>("centers.weight"));
  EXPECT_TRUE(std::equal(own.begin(), own.end(), want.begin() + 20 * width));
}

TEST_F(States, TakeGivenCentersInEitherType) {
  Bytes f32({centers(DType::f32)}), bf16({centers(DType::bf16)});
  initialize(f32, 3);
  initialize(bf16, 4);
  const auto given = f32.values<float>("centers.weight");
  const auto given_bf16 = bf16.values<BF16>("centers.weight");
  const Shape shape{classes, width};
  const std::vector<TensorView> as_f32{{"weight", DType::f32, shape, given.data()}};
  const std::vector<TensorView> as_bf16{{"weight", DType::bf16, shape, given_bf16.data()}};
  write_safetensors(folder_ / "f32.safetensors", as_f32);
  write_safetensors(folder_ / "bf16.safetensors", as_bf16);
  InitialWeights init;
  init.centers = folder_ / "f32.safetensors";
  Bytes own({centers(DType::bf16, 30, 20)});
  load_initial_weights(own, init);
  const auto made = widened(own.values<BF16>("centers.weight"));
  const auto want = rounded(given);
  EXPECT_TRUE(std::equal(made.begin(), made.end(), want.begin() + 30 * width));
  init.centers = folder_ / "bf16.safetensors";
  load_initial_weights(f32, init);
  EXPECT_EQ(f32.values<float>("centers.weight"), widened(given_bf16));

  const std::vector<std::int32_t> numbers(classes * width);
  const std::vector<TensorView> as_i32{{"weight", DType::i32, shape, numbers.data()}};
  write_safetensors(folder_ / "i32.safetensors", as_i32);
  init.centers = folder_ / "i32.safetensors";
  EXPECT_THAT([&] { load_initial_weights(f32, init); },
              ThrowsMessage<DataError>(
                  AllOf(HasSubstr("i32.safetensors"), HasSubstr("I32"), HasSubstr("F32"))));
}

TEST_F(States, AreRestoredInEitherType) {
  Bytes f32({centers(DType::f32)});
  initialize(f32, 5);
  const auto saved = f32.values<float>("centers.weight");
  CheckpointWriter writer(folder_, 1);
  const std::vector<TensorView> first{
      {"centers.weight[0:20]", DType::f32, Shape{20, width}, saved.data()}};
  const std::vector<TensorView> second{
      {"centers.weight[20:50]", DType::f32, Shape{30, width}, saved.data() + 20 * width}};
  writer.add_shard("a", first);
  writer.add_shard("b", second);
  CheckpointReader reader(writer.commit());
  Bytes own({centers(DType::bf16, 10, 25)});
  restore(own, reader);
  const auto made = widened(own.values<BF16>("centers.weight"));
  const auto want = rounded(saved);
  EXPECT_TRUE(std::equal(made.begin(), made.end(), want.begin() + 10 * width));
}

}  // namespace
}  // namespace ftrain
