#include "datasets/portraits/render.h"

#include "datasets/portraits/scene.h"
#include "ftrain/base/philox.h"

namespace ftrain::portraits {

Scene::Scene(const Identity& identity, const Shot& s, int size)
    : who(identity), shot(s), canvas(size) {
  unit = 0.285f * static_cast<float>(size) * shot.scale;
  const float middle = 0.5f * static_cast<float>(size);
  centre = {middle + shot.dx * unit, middle + (shot.dy - 0.02f) * unit};
  yaw_sin = std::sin(shot.yaw), yaw_cos = std::cos(shot.yaw);
  pitch_sin = std::sin(shot.pitch);
  roll_sin = std::sin(shot.roll), roll_cos = std::cos(shot.roll);
  shadow_side = shot.light_x > 0 ? -1.0f : 1.0f;
  dark = who.shade * Colour{0.55f, 0.45f, 0.45f};
}

namespace {

void paint_backdrop(Scene& scene) {
  const Shot& shot = scene.shot;
  Canvas& canvas = scene.canvas;
  const float size = static_cast<float>(canvas.size());
  const Point middle{size / 2, size / 2};
  const Point along{std::cos(shot.backdrop_angle), std::sin(shot.backdrop_angle)};
  const Point across{-along.y, along.x};
  const Colour deep = mix(shot.back, shot.back_second, 0.35f);
  for (int y = 0; y < canvas.size(); ++y) {
    const Colour row = mix(shot.back, deep, static_cast<float>(y) / size);
    for (int x = 0; x < canvas.size(); ++x) canvas.at(x, y) = row;
  }
  const auto band = [&](float from, float to) {
    const Point a = middle + along * (from * size), b = middle + along * (to * size);
    canvas.fill({a + across * size, b + across * size, b - across * size, a - across * size},
                shot.back_second, 0.55f);
  };
  if (shot.backdrop == 1) {
    band(0.4f * shot.backdrop_size - 0.2f, 1);
  } else if (shot.backdrop == 2) {
    const float radius = size * (0.32f + 0.14f * shot.backdrop_size);
    canvas.fill(ellipse(middle + along * (0.1f * size), radius, radius), shot.back_second, 0.6f);
  } else if (shot.backdrop == 3) {
    const float step = 0.16f + 0.14f * shot.backdrop_size;
    for (int i = -4; i <= 4; ++i) band(i * step, (i + 0.5f) * step);
  }
}

void paint_body(Scene& scene) {
  const Identity& who = scene.who;
  const Shot& shot = scene.shot;
  Canvas& canvas = scene.canvas;
  // The body does not turn with the head.
  const auto body = [&](float x, float y) {
    return Point{scene.centre.x + scene.unit * x, scene.centre.y + scene.unit * y};
  };
  const float neck = 0.72f * who.jaw;
  const Colour low = shot.cloth * 0.82f;
  const Contour torso =
      smooth_closed({body(-1.9f, 3), body(-1.75f, 2.05f), body(-1.1f, 1.68f),
                     body(-neck - 0.05f, 1.48f), body(0, 1.72f), body(neck + 0.05f, 1.48f),
                     body(1.1f, 1.68f), body(1.75f, 2.05f), body(1.9f, 3)});
  const Contour neck_shape =
      smooth_closed({scene.at(-neck, 0.7f, -0.1f), scene.at(neck, 0.7f, -0.1f),
                     body(neck * 1.02f, 1.4f), body(neck * 1.25f, 1.66f), body(0, 2.0f),
                     body(-neck * 1.25f, 1.66f), body(-neck * 1.02f, 1.4f)});
  canvas.fill(torso, [&](float x, float) {
    return mix(shot.cloth, low,
               smooth(-1.2f, 1.2f, -shot.light_x * (x - scene.centre.x) / scene.unit));
  });
  canvas.fill(neck_shape, mix(who.shade, who.skin, 0.55f));
  // The head's shadow on the neck.
  const Mask mask = canvas.mask(neck_shape);
  const Point chin = scene.at(0, who.length, 0.1f);
  canvas.blob(chin + Point{0, 0.05f * scene.unit}, 0.95f * scene.unit, 0.42f * scene.unit,
              who.shade * 0.8f, 0.9f, &mask);
  if (shot.collar == 1) {  // a shirt's collar
    for (float side : {-1.0f, 1.0f}) {
      canvas.fill({body(side * neck * 1.05f, 1.42f), body(side * neck * 1.5f, 1.58f),
                   body(side * neck * 0.95f, 2.05f), body(side * 0.02f, 1.76f)},
                  shot.cloth * 1.12f);
    }
  } else if (shot.collar == 2) {  // a round neckband
    canvas.fill(
        stroke(smooth_open({body(-neck * 1.25f, 1.52f), body(-neck * 0.6f, 1.7f), body(0, 1.78f),
                            body(neck * 0.6f, 1.7f), body(neck * 1.25f, 1.52f)}),
               [&](float) { return 0.12f * scene.unit; }),
        shot.cloth_second);
  } else if (shot.collar == 3) {  // a scarf or roll neck
    canvas.fill(
        smooth_closed({body(-neck * 1.2f, 1.4f), body(0, 1.56f), body(neck * 1.2f, 1.4f),
                       body(neck * 1.4f, 1.75f), body(0, 1.95f), body(-neck * 1.4f, 1.75f)}),
        shot.cloth_second);
  }
}

void paint_ears(Scene& scene) {
  const Identity& who = scene.who;
  for (float side : {-1.0f, 1.0f}) {
    const float x = side * (who.cheek - 0.04f + who.ear_out);
    const Point ear = scene.at(x, 0.08f + 0.3f * who.ear_size, -0.22f);
    const float wide = 0.62f * who.ear_size * scene.unit, high = 1.12f * who.ear_size * scene.unit;
    const float turn = scene.shot.roll + side * 0.16f;
    scene.canvas.fill(ellipse(ear, wide, high, turn),
                      [&](float px, float py) { return scene.skin_at(px, py) * 0.95f; });
    scene.canvas.fill(
        ellipse(ear + Point{side * 0.01f * scene.unit, 0}, 0.52f * wide, 0.62f * high, turn),
        who.shade, 0.7f);
  }
}

Contour face_outline(const Scene& scene) {
  const Identity& who = scene.who;
  const float chin = who.length + 0.07f * scene.shot.open;
  // The right half, from the crown to the chin, with depth.
  const float half[][3] = {{0.58f * who.temple, -0.89f * who.crown, 0},
                           {0.92f * who.temple, -0.55f, 0},
                           {who.cheek, 0.0f, 0},
                           {0.97f * who.cheek, 0.35f, 0.03f},
                           {who.jaw, 0.60f * chin, 0.1f},
                           {0.55f * who.jaw + 0.55f * who.chin, 0.86f * chin, 0.22f},
                           {who.chin, 0.97f * chin, 0.3f}};
  Contour points{scene.at(0, -who.crown, 0)};
  for (const auto& p : half) points.push_back(scene.at(p[0], p[1], p[2]));
  points.push_back(scene.at(0, chin, 0.33f));
  for (std::size_t i = std::size(half); i-- > 0;) {
    points.push_back(scene.at(-half[i][0], half[i][1], half[i][2]));
  }
  return smooth_closed(points, 5);
}

void finish(Scene& scene, Image& image) {
  const Shot& shot = scene.shot;
  Canvas& canvas = scene.canvas;
  if (shot.blur > 0) canvas.blur(shot.blur);
  const Colour gain = Colour{1 + shot.warmth, 1, 1 - shot.warmth} * shot.exposure;
  const int size = canvas.size();
  image.width = image.height = size;
  image.pixels.resize(static_cast<std::size_t>(size) * size * 3);
  std::uint8_t* out = image.pixels.data();
  // Two bytes of random bits a channel make roughly bell-shaped noise; a block serves two pixels.
  const float level = shot.noise * 255.0f / 104.0f;  // 104: the deviation of a sum of two bytes
  Philox block{};
  for (int y = 0; y < size; ++y) {
    for (int x = 0; x < size; ++x, out += 3) {
      const Colour c = canvas.at(x, y);
      const std::uint32_t pixel = static_cast<std::uint32_t>(y * size + x);
      if (pixel % 2 == 0) block = Philox::at(shot.noise_key, std::uint64_t{0}, pixel / 2);
      const std::uint32_t a = block.word[pixel % 2], b = block.word[2 + pixel % 2];
      const float value[3] = {c.r * gain.r, c.g * gain.g, c.b * gain.b};
      const int sum[3] = {static_cast<int>((a & 255) + (b & 255)),
                          static_cast<int>(((a >> 8) & 255) + ((b >> 8) & 255)),
                          static_cast<int>(((a >> 16) & 255) + ((b >> 16) & 255))};
      for (int k = 0; k < 3; ++k) {
        const float v = (0.5f + (value[k] - 0.5f) * shot.contrast) * 255.0f + 0.5f;
        out[k] = static_cast<std::uint8_t>(std::clamp(v + level * (sum[k] - 255), 0.0f, 255.0f));
      }
    }
  }
}

}  // namespace

void render(const Identity& who, const Shot& shot, int size, Image& image) {
  Scene scene(who, shot, size);
  paint_backdrop(scene);
  paint_hair_behind(scene);
  paint_body(scene);
  paint_ears(scene);
  const Contour outline = face_outline(scene);
  scene.face = scene.canvas.mask(outline);
  scene.canvas.fill(outline, [&](float x, float y) { return scene.skin_at(x, y); });
  paint_features(scene);
  paint_hair(scene);
  paint_glasses(scene);
  finish(scene, image);
}

}  // namespace ftrain::portraits
