// Renders a portrait: an Identity in a Shot, as an RGB image of size x size pixels.
//
// Flat shapes with soft light. The head is an ellipsoid: features lie on its surface and move with
// yaw and pitch by their depth, outlines lie in its middle plane. Pure functions, any thread.
#pragma once

#include "datasets/portraits/face.h"
#include "ftrain/data/image.h"

namespace ftrain::portraits {

void render(const Identity& who, const Shot& shot, int size, Image& image);

}  // namespace ftrain::portraits
