#include "ftrain/ops/image.h"

#include "ftrain/ops.h"

namespace ftrain {
namespace {

std::vector<TensorType> infer_image(const Node& node) {
  const Shape& x = node.input(0).shape;
  require(node.input(0).dtype == DType::u8 && x.rank() == 4 && x[3] == 3, node,
          "the image must be u8 [N, H, W, 3]");
  // A device that computes in 16 bits says so with the attribute "to".
  DType made = DType::f32;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    if (node.attributes.has("to") && node.attributes.text("to") == name_of(dtype)) made = dtype;
  }
  return {{made, Shape{x[0], 3, x[1], x[2]}}};
}

}  // namespace

namespace ops::def {

const OpDef image_normalize{.name = "image_normalize",
                            .infer = infer_image,
                            .operands = "image step",
                            .narrowing = {Narrowing::When::by_option}};

}  // namespace ops::def

Value ops::image_normalize(Value image, Value step, const ImageNormalize& options) {
  return image.graph().emit(ops::def::image_normalize, {image, step},
                            {{"mean", options.mean},
                             {"scale", options.scale},
                             {"flip", options.flip},
                             {"seed", static_cast<std::int64_t>(options.seed)},
                             {"first_sample", options.first_sample}});
}

}  // namespace ftrain
