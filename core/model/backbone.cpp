#include "ftrain/model/backbone.h"

namespace ftrain {

Backbone::~Backbone() = default;

}  // namespace ftrain
