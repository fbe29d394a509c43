// Collectives over a Communicator. They move memory as it lies, so every layout will do: all ranks
// run one graph and have it in the same layout.
#include <cstring>

#include "ftrain/base/error.h"
#include "ftrain/device/communicator.h"
#include "ftrain/device/kernel.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cpu/device/kernels.h"

namespace ftrain::cpu {
namespace {

class CollectiveKernel : public Kernel {
 public:
  CollectiveKernel(const Node& node, const KernelEnvironment& environment)
      : communicator_(environment.communicator), op_(node.op->name) {
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      in_types_.push_back(node.input(i));
      out_types_.push_back(node.outputs[i]);
    }
  }

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    if (communicator_ == nullptr) {
      throw DeviceError("the program has the collective '" + op_ +
                        "' and was compiled without a communicator");
    }
    in_.assign(inputs.begin(), inputs.end());
    out_.assign(outputs.begin(), outputs.end());
    scratch_ = static_cast<char*>(scratch);
  }

 protected:
  void copy_in(std::size_t i) {
    if (in_[i] != out_[i]) std::memcpy(out_[i], in_[i], in_types_[i].bytes());
  }

  Communicator* communicator_;
  std::string op_;
  std::vector<TensorType> in_types_, out_types_;
  std::vector<void*> in_, out_;
  char* scratch_ = nullptr;
};

// Small tensors travel together, through scratch: one message instead of hundreds.
class AllReduce final : public CollectiveKernel {
 public:
  AllReduce(const Node& node, const KernelEnvironment& environment)
      : CollectiveKernel(node, environment) {
    for (std::size_t i = 0; i < in_types_.size(); ++i) {
      const bool packed = in_types_.size() > 1 && in_types_[i].bytes() <= small &&
                          in_types_[i].dtype == in_types_[0].dtype;
      (packed ? packed_ : alone_).push_back(i);
      if (packed) packed_bytes_ += in_types_[i].bytes();
    }
  }

  std::size_t scratch_bytes() const override { return packed_bytes_; }
  int overwrites() const override { return -2; }  // a large tensor is summed where it lies

  void launch() override {
    if (!packed_.empty()) {
      char* place = scratch_;
      for (const std::size_t i : packed_) {
        std::memcpy(place, in_[i], in_types_[i].bytes());
        place += in_types_[i].bytes();
      }
      const DType dtype = in_types_[0].dtype;
      communicator_->all_reduce(scratch_, static_cast<std::int64_t>(packed_bytes_ / size_of(dtype)),
                                dtype, Reduction::sum);
      place = scratch_;
      for (const std::size_t i : packed_) {
        std::memcpy(out_[i], place, in_types_[i].bytes());
        place += in_types_[i].bytes();
      }
    }
    for (const std::size_t i : alone_) {
      copy_in(i);
      communicator_->all_reduce(out_[i], in_types_[i].shape.elements(), in_types_[i].dtype,
                                Reduction::sum);
    }
  }

 private:
  static constexpr std::size_t small = std::size_t{256} << 10;
  std::vector<std::size_t> packed_, alone_;
  std::size_t packed_bytes_ = 0;
};

class AllGather final : public CollectiveKernel {
 public:
  using CollectiveKernel::CollectiveKernel;
  void launch() override { communicator_->all_gather(in_[0], out_[0], in_types_[0].bytes()); }
};

// f32 that travels in bf16. Own rows are rounded like the others': all ranks have the same bits.
class AllGatherRounded final : public CollectiveKernel {
 public:
  AllGatherRounded(const Node& node, const KernelEnvironment& environment)
      : CollectiveKernel(node, environment),
        own_(static_cast<std::size_t>(in_types_[0].shape.elements())),
        all_(static_cast<std::size_t>(out_types_[0].shape.elements())) {}

  std::size_t scratch_bytes() const override { return (own_ + all_) * sizeof(BF16); }

  void launch() override {
    BF16* const all = reinterpret_cast<BF16*>(scratch_);
    BF16* const own = all + all_;
    const float* const in = static_cast<const float*>(in_[0]);
    float* const out = static_cast<float*>(out_[0]);
    for (std::size_t i = 0; i < own_; ++i) own[i] = to_bf16(in[i]);
    communicator_->all_gather(own, all, own_ * sizeof(BF16));
    for (std::size_t i = 0; i < all_; ++i) out[i] = to_f32(all[i]);
  }

 private:
  std::size_t own_, all_;
};

std::unique_ptr<Kernel> make_gather(const Node& node, const KernelEnvironment& environment) {
  if (node.attributes.has("wire")) return std::make_unique<AllGatherRounded>(node, environment);
  return std::make_unique<AllGather>(node, environment);
}

class ReduceScatter final : public CollectiveKernel {
 public:
  using CollectiveKernel::CollectiveKernel;
  void launch() override {
    communicator_->reduce_scatter(in_[0], out_[0], out_types_[0].shape.elements(),
                                  out_types_[0].dtype);
  }
};

class Broadcast final : public CollectiveKernel {
 public:
  Broadcast(const Node& node, const KernelEnvironment& environment)
      : CollectiveKernel(node, environment),
        root_(static_cast<int>(node.attributes.integer("root"))) {}
  int overwrites() const override { return 0; }
  void launch() override {
    copy_in(0);
    communicator_->broadcast(out_[0], in_types_[0].bytes(), root_);
  }

 private:
  int root_;
};

std::string refuse(const Node& node, const KernelEnvironment& environment) {
  const std::int64_t ranks = node.attributes.integer("ranks");
  if (environment.communicator != nullptr && environment.communicator->size() != ranks) {
    return "the graph is for " + std::to_string(ranks) + " ranks and the communicator has " +
           std::to_string(environment.communicator->size());
  }
  return "";
}

std::string refuse_sum(const Node& node, const KernelEnvironment& environment) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const DType dtype = node.input(i).dtype;
    if (dtype != DType::f32 && dtype != DType::f64 && dtype != DType::i64) {
      return "communicators sum f32, f64 and i64";
    }
  }
  return refuse(node, environment);
}

template <class T>
std::unique_ptr<Kernel> make(const Node& node, const KernelEnvironment& environment) {
  return std::make_unique<T>(node, environment);
}

}  // namespace

void add_collective_kernels(KernelList& list) {
  list.add({"all_reduce", "communicator", 0, refuse_sum, make<AllReduce>});
  list.add({"all_gather", "communicator", 0, refuse, make_gather});
  list.add({"reduce_scatter", "communicator", 0, refuse_sum, make<ReduceScatter>});
  list.add({"broadcast", "communicator", 0, refuse, make<Broadcast>});
}

}  // namespace ftrain::cpu
