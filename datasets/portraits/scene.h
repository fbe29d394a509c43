// What the parts of a portrait share while it is painted: canvas, pose and light.
#pragma once

#include "datasets/portraits/canvas.h"
#include "datasets/portraits/face.h"

namespace ftrain::portraits {

struct Scene {
  Scene(const Identity& identity, const Shot& shot, int size);

  // A point of the head, turned by yaw and pitch and seen from the front, still in head units.
  Point turned(float x, float y, float z) const {
    const float forward = z * yaw_cos - x * yaw_sin;
    return {x * (0.5f + 0.5f * yaw_cos) + z * yaw_sin, y - forward * pitch_sin};
  }
  // From there to pixels.
  Point place(Point p) const {
    return {centre.x + unit * (p.x * roll_cos - p.y * roll_sin),
            centre.y + unit * (p.x * roll_sin + p.y * roll_cos)};
  }
  Point at(float x, float y, float z) const { return place(turned(x, y, z)); }
  // The depth of the face's surface.
  static float depth(float x, float y) {
    return 0.95f * std::sqrt(std::max(1 - x * x * 0.8f - y * y * 0.4f, 0.04f));
  }
  // A point of the face's surface, raised by `lift`, in pixels.
  Point on(float x, float y, float lift = 0) const { return at(x, y, depth(x, y) + lift); }
  // How much light falls on the head at a pixel, 0 to 1, taking it for an ellipsoid.
  float light(float x, float y) const {
    const float dx = (x - centre.x) / unit, dy = (y - centre.y) / unit - 0.05f;
    const float nx = dx * 0.85f, ny = dy * 0.68f;
    const float nz = std::sqrt(std::max(1 - nx * nx - ny * ny, 0.02f));
    const float lit = nx * shot.light_x + ny * shot.light_y + nz * shot.light_z;
    return shot.ambient + (1 - shot.ambient) * smooth(-0.25f, 0.85f, lit);
  }
  Colour skin_at(float x, float y) const { return mix(who.shade, who.skin, light(x, y)); }

  const Identity& who;
  const Shot& shot;
  Canvas canvas;
  Mask face;  // the face's own shape, to keep shadows and colour within it
  Point centre;
  float unit;  // pixels a head unit
  float yaw_sin, yaw_cos, pitch_sin, roll_sin, roll_cos;
  float shadow_side;  // -1 or 1: where the nose's shadow falls
  Colour dark;        // lines on skin
};

void paint_features(Scene& scene);  // brows, eyes, nose, mouth, beard, marks
void paint_glasses(Scene& scene);
void paint_hair_behind(Scene& scene);
void paint_hair(Scene& scene);

}  // namespace ftrain::portraits
