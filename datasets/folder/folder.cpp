// A folder with a folder of images for each person. The sorted names of the people's folders are
// the labels 0, 1, 2, ...; hidden files and folders are left out.
#include <algorithm>
#include <cctype>
#include <fstream>

#include "core/data/files.h"
#include "ftrain/data/dataset.h"
#include "ftrain/plugin.h"

namespace {

namespace fs = std::filesystem;

bool hidden(const fs::path& path) {
  return path.filename().string().starts_with('.');
}

bool is_image(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png" || extension == ".ppm";
}

class Folder : public ftrain::Dataset {
 public:
  void configure(ftrain::Keys& keys) override {
    keys.require("path", path_,
                 "the folder: one folder a person in it, with JPEG, PNG or PPM images");
  }

  void open(std::uint64_t) override {
    if (!fs::exists(path_)) throw ftrain::missing_path(path_, "folder");
    if (!fs::is_directory(path_))
      throw ftrain::DataError(path_.string() +
                              ": is no folder. A folder of people is needed, each "
                              "of them a folder of images");
    try {
      list();
    } catch (const fs::filesystem_error& error) {
      throw ftrain::DataError(error.path1().string() +
                              ": cannot be listed: " + error.code().message());
    }
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(images_.size()); }
  std::int64_t classes() const override { return static_cast<std::int64_t>(people_.size()); }

  void read(std::int64_t index, ftrain::Sample& sample) const override {
    const fs::path file = file_of(index);
    std::ifstream stream(file, std::ios::binary | std::ios::ate);
    const auto length = static_cast<std::streamoff>(stream.tellg());
    if (!stream || length < 0)
      throw ftrain::DataError(file.string() + ": the image cannot be opened");
    sample.bytes.resize(static_cast<std::size_t>(length));
    stream.seekg(0);
    if (!stream.read(reinterpret_cast<char*>(sample.bytes.data()), length))
      throw ftrain::DataError(file.string() + ": the image cannot be read");
    sample.label = images_[static_cast<std::size_t>(index)].person;
  }

  std::string describe_sample(std::int64_t index) const override { return file_of(index).string(); }

  std::string summary() const override {
    return path_.string() + ": " + std::to_string(size()) + " images of " +
           std::to_string(classes()) + " people";
  }

 private:
  struct ImageFile {
    std::int64_t person;
    std::string name;
  };

  void list() {
    bool loose_images = false;
    for (const auto& entry : fs::directory_iterator(path_)) {
      if (hidden(entry.path())) continue;
      if (entry.is_directory())
        people_.push_back(entry.path().filename().string());
      else
        loose_images = loose_images || is_image(entry.path());
    }
    if (people_.empty())
      throw ftrain::DataError(
          path_.string() + ": the folder holds no people, that is, no folders with images" +
          (loose_images ? "; images directly in it have no label: put them into a folder a person"
                        : ""));
    std::sort(people_.begin(), people_.end());
    for (std::size_t person = 0; person < people_.size(); ++person) {
      std::vector<std::string> names;
      for (const auto& entry : fs::directory_iterator(path_ / people_[person]))
        if (!hidden(entry.path()) && is_image(entry.path()) && entry.is_regular_file())
          names.push_back(entry.path().filename().string());
      if (names.empty())
        throw ftrain::DataError((path_ / people_[person]).string() +
                                ": the folder holds no image (.jpg, .jpeg, .png, .ppm), so its "
                                "person could not be learnt. Remove it or fill it");
      std::sort(names.begin(), names.end());
      for (auto& name : names)
        images_.push_back({static_cast<std::int64_t>(person), std::move(name)});
    }
  }

  fs::path file_of(std::int64_t index) const {
    const ImageFile& image = images_[static_cast<std::size_t>(index)];
    return path_ / people_[static_cast<std::size_t>(image.person)] / image.name;
  }

  fs::path path_;
  std::vector<std::string> people_;
  std::vector<ImageFile> images_;
};

}  // namespace

FTRAIN_PLUGIN(folder, registry) {
  registry.add<ftrain::Dataset, Folder>("folder", "JPEG, PNG or PPM files, one folder a person");
}
