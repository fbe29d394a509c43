// Collectives between devices: enqueued by the communicator where it can, else through the host's
// memory. They move memory as it lies, so every layout will do: all ranks run one graph and have it
// in the same layout.
#include <memory>
#include <string>
#include <vector>

#include "ftrain/base/error.h"
#include "ftrain/device/communicator.h"
#include "ftrain/graph/opdef.h"
#include "plugins/devices/cuda/ops/collective_copy.h"
#include "plugins/devices/cuda/ops/kernels.h"
#include "plugins/devices/cuda/runtime/check.h"
#include "plugins/devices/cuda/runtime/staged_collectives.h"

namespace ftrain::cuda {
namespace {

class CollectiveKernel : public Kernel {
 public:
  CollectiveKernel(const Node& node, const KernelEnvironment& environment)
      : context_(context_of(environment)),
        communicator_(environment.communicator),
        op_(node.op->name) {
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      in_types_.push_back(node.input(i));
      out_types_.push_back(node.outputs[i]);
    }
  }

  // Where programs are compiled all ranks meet: there the communicator learns of the devices.
  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    if (communicator_ == nullptr) {
      throw DeviceError("the program has the collective '" + op_ +
                        "' and was compiled without a communicator");
    }
    in_.assign(inputs.begin(), inputs.end());
    out_.assign(outputs.begin(), outputs.end());
    scratch_ = static_cast<std::byte*>(scratch);
    by_ = communicator_->device_collectives();
    if (by_ != nullptr) return;
    if (context_.host == nullptr) {
      throw DeviceError("the collective '" + op_ +
                        "' goes through the host's memory, and its stream has no lane for that");
    }
    staged_ = std::make_unique<StagedCollectives>(*communicator_, *context_.host);
    by_ = staged_.get();
  }

  void launch() final {
    if (staged_) staged_->begin_launch();
    exchange();
  }

 protected:
  virtual void exchange() = 0;

  void copy_in(std::size_t i) {
    if (in_[i] == out_[i]) return;
    check(cudaMemcpyAsync(out_[i], in_[i], in_types_[i].bytes(), cudaMemcpyDeviceToDevice,
                          context_.stream),
          "copying the tensor of " + op_);
  }

  const Context& context_;
  Communicator* const communicator_;
  const std::string op_;
  std::vector<TensorType> in_types_, out_types_;
  std::vector<void*> in_, out_;
  std::byte* scratch_ = nullptr;
  DeviceCollectives* by_ = nullptr;
  std::unique_ptr<StagedCollectives> staged_;
};

// Small tensors travel together, through scratch: one message and two launches instead of hundreds.
class AllReduce final : public CollectiveKernel {
 public:
  AllReduce(const Node& node, const KernelEnvironment& environment)
      : CollectiveKernel(node, environment) {
    const auto is_small = [this](std::size_t i) {
      return in_types_[i].bytes() <= small && in_types_[i].bytes() > 0 &&
             in_types_[i].dtype == in_types_[0].dtype;
    };
    std::size_t smalls = 0;
    for (std::size_t i = 0; i < in_types_.size(); ++i) smalls += is_small(i);
    for (std::size_t i = 0; i < in_types_.size(); ++i) {
      const bool packed = smalls > 1 && is_small(i);
      (packed ? packed_ : alone_).push_back(i);
      if (packed) packed_bytes_ += in_types_[i].bytes();
    }
  }

  std::size_t scratch_bytes() const override { return packed_bytes_; }
  int overwrites() const override { return -2; }  // a large tensor is summed where it lies

  void bind(std::span<void* const> inputs, std::span<void* const> outputs, void* scratch) override {
    CollectiveKernel::bind(inputs, outputs, scratch);
    std::uint32_t first = 0;
    for (const std::size_t i : packed_) {
      const auto words = static_cast<std::uint32_t>(in_types_[i].bytes() / 4);
      sources_.push_back({in_[i], first, words});
      results_.push_back({out_[i], first, words});
      first += words;
    }
  }

 private:
  static constexpr std::size_t small = std::size_t{256} << 10;

  void exchange() override {
    const DType dtype = in_types_[0].dtype;
    if (!packed_.empty()) pack(sources_, scratch_, context_);
    for (const std::size_t i : alone_) copy_in(i);
    by_->begin_group();
    if (!packed_.empty()) {
      by_->all_reduce(scratch_, static_cast<std::int64_t>(packed_bytes_ / size_of(dtype)), dtype,
                      Reduction::sum, context_.stream);
    }
    for (const std::size_t i : alone_) {
      by_->all_reduce(out_[i], in_types_[i].shape.elements(), in_types_[i].dtype, Reduction::sum,
                      context_.stream);
    }
    by_->end_group();
    if (!packed_.empty()) unpack(results_, scratch_, context_);
  }

  std::vector<std::size_t> packed_, alone_;
  std::size_t packed_bytes_ = 0;
  std::vector<PackedPiece> sources_, results_;
};

class AllGather final : public CollectiveKernel {
 public:
  using CollectiveKernel::CollectiveKernel;

 private:
  void exchange() override {
    by_->all_gather(in_[0], out_[0], in_types_[0].bytes(), context_.stream);
  }
};

// f32 that travels in bf16. Own rows are rounded like the others': all ranks have the same bits.
class AllGatherRounded final : public CollectiveKernel {
 public:
  AllGatherRounded(const Node& node, const KernelEnvironment& environment)
      : CollectiveKernel(node, environment),
        own_(in_types_[0].shape.elements()),
        all_(out_types_[0].shape.elements()) {}

  std::size_t scratch_bytes() const override { return bytes_of(all_) + bytes_of(own_); }

 private:
  // Each part is aligned for whole packets.
  static std::size_t bytes_of(std::int64_t count) {
    return (static_cast<std::size_t>(count) * sizeof(__nv_bfloat16) + 63) / 64 * 64;
  }

  void exchange() override {
    auto* const all = reinterpret_cast<__nv_bfloat16*>(scratch_);
    auto* const own = reinterpret_cast<__nv_bfloat16*>(scratch_ + bytes_of(all_));
    to_wire(static_cast<const float*>(in_[0]), own, own_, context_);
    by_->all_gather(own, all, static_cast<std::size_t>(own_) * sizeof(__nv_bfloat16),
                    context_.stream);
    from_wire(all, static_cast<float*>(out_[0]), all_, context_);
  }

  std::int64_t own_, all_;
};

std::unique_ptr<Kernel> make_gather(const Node& node, const KernelEnvironment& environment) {
  if (node.attributes.has("wire")) return std::make_unique<AllGatherRounded>(node, environment);
  return std::make_unique<AllGather>(node, environment);
}

class ReduceScatter final : public CollectiveKernel {
 public:
  using CollectiveKernel::CollectiveKernel;

 private:
  void exchange() override {
    by_->reduce_scatter(in_[0], out_[0], out_types_[0].shape.elements(), out_types_[0].dtype,
                        context_.stream);
  }
};

class Broadcast final : public CollectiveKernel {
 public:
  Broadcast(const Node& node, const KernelEnvironment& environment)
      : CollectiveKernel(node, environment),
        root_(static_cast<int>(node.attributes.integer("root"))) {}
  int overwrites() const override { return 0; }

 private:
  void exchange() override {
    copy_in(0);
    by_->broadcast(out_[0], in_types_[0].bytes(), root_, context_.stream);
  }

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
  list.add({"all_reduce", "communicator", 10, refuse_sum, make<AllReduce>});
  list.add({"all_gather", "communicator", 10, refuse, make_gather});
  list.add({"reduce_scatter", "communicator", 10, refuse_sum, make<ReduceScatter>});
  list.add({"broadcast", "communicator", 10, refuse, make<Broadcast>});
}

}  // namespace ftrain::cuda
