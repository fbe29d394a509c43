// Many small images on one: for looking at a data set.
//
// Threads: no state.
#pragma once

#include <cstdint>
#include <vector>

#include "ftrain/data/dataset.h"
#include "ftrain/data/image.h"
#include "ftrain/plugin/api.h"

namespace ftrain {

// One row of a sheet: samples of one label, by index.
struct SheetRow {
  std::int64_t label = 0;
  std::vector<std::int64_t> samples;
};

// Samples of a data set for a sheet of `count` images: labels spread over the whole of it, up to
// `columns` samples of each. A label's other samples are looked for among its neighbours, where
// data sets keep them; a row with fewer samples than columns stays short.
FTRAIN_API std::vector<SheetRow> choose_samples(const Dataset& dataset, std::int64_t count,
                                                std::int64_t columns);

// The rows' images side by side, each `size` x `size`, on a light ground.
FTRAIN_API Image contact_sheet(const std::vector<std::vector<Image>>& rows, int size);

}  // namespace ftrain
