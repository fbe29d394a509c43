// The data set of a RecordIO file as MXNet's and InsightFace's tools write it.
#include <algorithm>
#include <cmath>
#include <optional>

#include "core/data/files.h"
#include "datasets/recordio/record_file.h"
#include "ftrain/data/dataset.h"
#include "ftrain/plugin.h"

namespace {

namespace fs = std::filesystem;

// Labels are stored as f32, which holds every whole number up to here.
constexpr float highest_label = 16777216.0f;

class RecordIo : public ftrain::Dataset {
 public:
  void configure(ftrain::Keys& keys) override {
    keys.require(
        "path", path_,
        "the .rec file, or the folder that holds train.rec; an .idx file beside it is used "
        "when there is one");
    keys.bind("classes", wanted_classes_,
              "the number of classes; absent: the highest label of the images, plus one",
              ftrain::at_least(1));
  }

  void open(std::uint64_t) override {
    if (fs::is_directory(path_)) path_ /= "train.rec";
    if (!fs::exists(path_)) throw ftrain::missing_path(path_, "file");
    file_ = recordio::RecordFile(path_);
    file_->expect_sequential();
    fs::path index = path_;
    index.replace_extension(".idx");
    if (index != path_ && fs::exists(index))
      take_indexed(recordio::read_index(index));
    else
      take_all();
    file_->expect_random();
    if (offsets_.empty())
      throw ftrain::DataError(path_.string() + ": the file holds no images, only " +
                              std::to_string(metadata_) + " metadata records");
    offsets_.shrink_to_fit();
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(offsets_.size()); }
  std::int64_t classes() const override { return wanted_classes_.value_or(classes_); }

  void read(std::int64_t index, ftrain::Sample& sample) const override {
    std::vector<std::uint8_t> joined;
    const std::int64_t number = number_of(index);
    const auto record =
        file_->read(offsets_[static_cast<std::size_t>(index)], number, joined, true);
    const auto image = file_->image_record(record, number);
    if (!image) throw ftrain::DataError(file_->describe(number) + ": the image is gone");
    sample.bytes.assign(image->image.begin(), image->image.end());
    sample.label = checked_label(image->label, number);
  }

  std::string describe_sample(std::int64_t index) const override {
    return file_->describe(number_of(index));
  }

  std::string summary() const override {
    return path_.string() + ": " + std::to_string(size()) + " images of " +
           std::to_string(classes()) + " classes, " + std::to_string(metadata_) +
           " metadata records, " + (indexed_ ? "with" : "without") + " an .idx file";
  }

 private:
  // Every record of the file, in its order; numbers count from 0.
  void take_all() {
    std::vector<std::uint8_t> joined;
    std::int64_t number = 0;
    for (std::int64_t offset = 0; offset < file_->bytes(); ++number) {
      const auto record = file_->read(offset, number, joined);
      take(record, offset, number);
      offset = record.next;
    }
  }

  // The records that the .idx file names, in the order of their keys, which are their numbers.
  void take_indexed(std::vector<recordio::IndexEntry> entries) {
    indexed_ = true;
    // The headers are visited as they lie in the file; only then images are put in order.
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return a.offset < b.offset; });
    std::vector<std::uint8_t> joined;
    std::erase_if(entries, [&](const recordio::IndexEntry& entry) {
      const auto record = file_->read(entry.offset, entry.key, joined);
      return !is_image(record, entry.key);
    });
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return a.key < b.key; });
    for (std::size_t i = 1; i < entries.size(); ++i)
      if (entries[i].key == entries[i - 1].key)
        throw ftrain::DataError(path_.string() + ": its .idx file has the key " +
                                std::to_string(entries[i].key) +
                                " twice. Remove the .idx file: it is not needed");
    offsets_.reserve(entries.size());
    for (const auto& entry : entries) append(entry.offset, entry.key);
  }

  void take(const recordio::Record& record, std::int64_t offset, std::int64_t number) {
    if (is_image(record, number)) append(offset, number);
  }

  // Checks the record on the way, and counts.
  bool is_image(const recordio::Record& record, std::int64_t number) {
    const auto image = file_->image_record(record, number);
    if (!image) {
      ++metadata_;
      return false;
    }
    classes_ = std::max(classes_, checked_label(image->label, number) + 1);
    return true;
  }

  std::int64_t checked_label(float label, std::int64_t number) const {
    if (!(label >= 0 && label <= highest_label && label == std::floor(label)))
      throw ftrain::DataError(file_->describe(number) +
                              ": a label is a whole number from 0 to 16777216 (beyond, 32-bit "
                              "floats no longer tell neighbours apart), not " +
                              std::to_string(label));
    const auto whole = static_cast<std::int64_t>(label);
    if (wanted_classes_ && whole >= *wanted_classes_)
      throw ftrain::DataError(file_->describe(number) + ": the label " + std::to_string(whole) +
                              " is not below classes = " + std::to_string(*wanted_classes_) +
                              ". Raise classes, or leave it out to derive it from the data");
    return whole;
  }

  // Numbers are kept only where they do not count up from the first one.
  void append(std::int64_t offset, std::int64_t number) {
    if (offsets_.empty()) first_number_ = number;
    const bool regular = number == first_number_ + size();
    if (!regular && numbers_.empty())
      for (std::int64_t i = 0; i < size(); ++i) numbers_.push_back(first_number_ + i);
    offsets_.push_back(offset);
    if (!regular || !numbers_.empty()) numbers_.push_back(number);
  }
  std::int64_t number_of(std::int64_t index) const {
    return numbers_.empty() ? first_number_ + index : numbers_[static_cast<std::size_t>(index)];
  }

  fs::path path_;
  std::optional<std::int64_t> wanted_classes_;
  std::optional<recordio::RecordFile> file_;
  std::vector<std::int64_t> offsets_;  // of the images
  std::vector<std::int64_t> numbers_;  // of their records; empty: first_number_ and up
  std::int64_t first_number_ = 0, classes_ = 0, metadata_ = 0;
  bool indexed_ = false;
};

}  // namespace

FTRAIN_PLUGIN(recordio, registry) {
  registry.add<ftrain::Dataset, RecordIo>("recordio", "MXNet RecordIO: a .rec file of images");
}
