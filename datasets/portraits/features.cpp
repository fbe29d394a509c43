#include "datasets/portraits/scene.h"
#include "ftrain/base/philox.h"

namespace ftrain::portraits {
namespace {

void paint_marks(Scene& scene) {
  const Identity& who = scene.who;
  Canvas& canvas = scene.canvas;
  const float u = scene.unit;
  const float cheek_y = who.eye_y + 0.42f;
  for (float side : {-1.0f, 1.0f}) {
    canvas.blob(scene.on(side * 0.55f, cheek_y), 0.4f * u, 0.3f * u, {0.90f, 0.36f, 0.34f},
                who.blush, &scene.face);
    if (who.smile_line > 0) {
      const float strength = who.smile_line * (0.45f + 0.4f * clamp01(scene.shot.smile));
      const float low = who.eye_y + who.nose_length;
      canvas.fill(stroke(smooth_open({scene.on(side * 0.25f, low - 0.05f),
                                      scene.on(side * 0.4f, low + 0.12f),
                                      scene.on(side * 0.46f, low + 0.34f)}),
                         [&](float t) { return u * (0.012f + 0.14f * t * (1 - t)); }),
                  who.shade, strength, &scene.face);
    }
  }
  if (who.freckles > 0) {
    const Colour tint = who.shade * Colour{0.82f, 0.66f, 0.6f};
    for (std::uint32_t i = 0; i < 22; ++i) {
      const Philox r = Philox::at(who.freckle_seed, std::uint64_t{1}, i);
      const float x = 1.4f * r.uniform(0) - 0.7f, y = cheek_y - 0.2f + 0.34f * r.uniform(1);
      const float radius = u * (0.011f + 0.010f * r.uniform(2));
      canvas.fill(ellipse(scene.on(x, y - 0.1f * std::fabs(x)), radius, radius), tint, who.freckles,
                  &scene.face);
    }
  }
  for (int i = 0; i < who.moles; ++i) {
    const Spot& mole = who.mole[i];
    canvas.fill(ellipse(scene.on(mole.x, mole.y), mole.size * u, mole.size * u),
                who.shade * Colour{0.4f, 0.32f, 0.3f}, 0.95f, &scene.face);
  }
}

void paint_eye(Scene& scene, float side) {
  const Identity& who = scene.who;
  const Shot& shot = scene.shot;
  Canvas& canvas = scene.canvas;
  const float u = scene.unit, w = who.eye_width;
  const float squint = 1 - 0.18f * clamp01(shot.smile);
  const float h = who.eye_height * std::max(shot.lids, 0.0f) * squint;
  // (outwards from the eye's middle, down)
  const auto point = [&](float x, float y) {
    return scene.on(side * (who.eye_gap + x), who.eye_y + y - who.eye_tilt * x / w);
  };
  canvas.blob(point(0, -0.03f), 0.36f * u, 0.27f * u, who.shade, 0.45f, &scene.face);
  const Colour line = mix(scene.dark, {0.1f, 0.07f, 0.08f}, 0.65f);
  const auto lash = [&](float t) { return u * who.lashes * (0.35f + 1.5f * t * (1.35f - t)); };
  if (shot.lids < 0.3f) {  // shut
    canvas.fill(stroke(smooth_open({point(-w, 0.01f), point(-0.4f * w, 0.055f),
                                    point(0.3f * w, 0.06f), point(w, 0)}),
                       lash),
                line);
    return;
  }
  const Contour above =
      smooth_open({point(-w, 0.015f), point(-0.55f * w, -0.72f * h), point(0.05f * w, -h),
                   point(0.62f * w, -0.7f * h), point(w, -0.01f)},
                  4);
  const Contour below = smooth_open({point(w, -0.01f), point(0.45f * w, 0.62f * h),
                                     point(-0.3f * w, 0.68f * h), point(-w, 0.015f)},
                                    4);
  Contour opening = above;
  opening.insert(opening.end(), below.begin() + 1, below.end() - 1);
  const Mask mask = canvas.mask(opening);
  canvas.fill(opening, Colour{0.965f, 0.955f, 0.94f});
  const Point iris = point(side * 0.055f * shot.gaze_x, 0.025f * shot.gaze_y - 0.1f * h);
  const float radius = 0.112f * u;
  canvas.fill(ellipse(iris, 1.12f * radius, 1.12f * radius), who.iris * 0.45f, 1, &mask);
  canvas.fill(
      ellipse(iris, 0.95f * radius, 0.95f * radius),
      [&](float, float y) {
        return who.iris * (0.8f + 0.45f * smooth(-1, 1, (y - iris.y) / radius));
      },
      1, &mask);
  canvas.fill(ellipse(iris, 0.45f * radius, 0.45f * radius), Colour{0.05f, 0.04f, 0.05f}, 1, &mask);
  canvas.fill(
      ellipse(iris + Point{0.35f * shot.light_x, -0.4f} * radius, 0.3f * radius, 0.3f * radius),
      Colour{1, 1, 1}, 0.95f, &mask);
  // The upper lid's shadow on the eyeball, then the lid and its crease.
  canvas.fill(stroke(above, [&](float) { return 0.07f * u; }), Colour{0.25f, 0.18f, 0.2f}, 0.35f,
              &mask);
  canvas.fill(stroke(above, lash), line);
  canvas.fill(stroke(below, [&](float) { return 0.02f * u; }), scene.dark, 0.45f);
  const float crease = 0.035f + 0.05f * who.lid;
  canvas.fill(stroke(smooth_open({point(-0.8f * w, -0.62f * h - crease * 0.6f),
                                  point(0, -h - crease), point(0.7f * w, -0.72f * h - crease),
                                  point(1.1f * w, -0.1f * h - crease * 0.5f)},
                                 4),
                     [&](float t) { return u * (0.01f + 0.1f * t * (1 - t)); }),
              scene.dark, 0.25f + 0.4f * who.lid);
}

void paint_brow(Scene& scene, float side) {
  const Identity& who = scene.who;
  const float y = who.eye_y - who.brow_height - 0.07f * scene.shot.brow;
  const float length = who.brow_length, tilt = who.brow_tilt;
  const auto point = [&](float t, float rise) {
    return scene.on(side * (who.eye_gap + length * t), y - rise + tilt * -t, 0.03f);
  };
  const Contour line = smooth_open({point(-1, 0), point(-0.3f, 0.55f * who.brow_arch),
                                    point(0.4f, who.brow_arch), point(1, 0.1f * who.brow_arch)});
  // Fair hair makes brows a little darker than itself, dark hair a little lighter.
  const Colour colour = mix(who.hair * 0.72f, who.shade * 0.5f, 0.25f);
  scene.canvas.fill(stroke(line,
                           [&](float t) {
                             return scene.unit * who.brow_weight *
                                    (0.55f + 1.2f * t * (1.1f - t) - 0.4f * t * t);
                           }),
                    colour, 0.92f);
}

void paint_nose(Scene& scene) {
  const Identity& who = scene.who;
  Canvas& canvas = scene.canvas;
  const float u = scene.unit, w = who.nose_width, side = scene.shadow_side;
  const float tip_y = who.eye_y + who.nose_length, raise = who.nose_tip;
  const float strength = 0.3f + 0.3f * who.nose_bridge;
  // The plane that turns away from the light, along the ridge.
  canvas.fill(smooth_closed({scene.on(side * 0.16f, who.eye_y - 0.16f),
                             scene.on(side * 0.05f, who.eye_y + 0.1f, 0.08f),
                             scene.on(side * 0.04f, tip_y - 0.12f, 0.2f),
                             scene.on(side * 0.02f, tip_y - raise, 0.24f),
                             scene.on(side * 0.85f * w, tip_y + 0.03f, 0.06f),
                             scene.on(side * 0.7f * w, tip_y - 0.14f, 0.04f),
                             scene.on(side * 0.12f, who.eye_y + 0.08f)},
                            4),
              who.shade, strength, &scene.face);
  canvas.blob(scene.on(0, tip_y - 0.06f - raise, 0.2f), 0.75f * w * u, 0.14f * u,
              mix(who.skin, {1, 0.97f, 0.92f}, 0.45f), 0.75f);
  canvas.blob(scene.on(0, tip_y + 0.09f, 0.04f), 1.15f * w * u, 0.11f * u, who.shade, 0.7f,
              &scene.face);
  for (float s : {-1.0f, 1.0f}) {
    canvas.fill(stroke(smooth_open({scene.on(s * 0.92f * w, tip_y - 0.11f, 0.05f),
                                    scene.on(s * 1.08f * w, tip_y - 0.02f, 0.05f),
                                    scene.on(s * 0.85f * w, tip_y + 0.05f, 0.07f)},
                                   4),
                       [&](float t) { return u * (0.02f + 0.08f * t * (1 - t)); }),
                scene.dark, 0.55f);
    canvas.fill(ellipse(scene.on(s * 0.48f * w, tip_y + 0.03f - 0.6f * raise, 0.12f), 0.26f * w * u,
                        0.034f * u, scene.shot.roll - s * 0.25f),
                scene.dark, 0.85f);
  }
}

void paint_mouth(Scene& scene) {
  const Identity& who = scene.who;
  const Shot& shot = scene.shot;
  Canvas& canvas = scene.canvas;
  const float u = scene.unit, smile = shot.smile, gap = 0.15f * shot.open;
  const float w = who.mouth_width * (1 + 0.14f * smile - 0.08f * shot.open);
  const float y = who.eye_y + who.nose_length + who.mouth_y;
  const float corner = -0.09f * smile, sag = 0.035f * smile;
  const auto point = [&](float x, float dy) { return scene.on(x * w, y + dy, 0.05f); };
  const Point left = point(-1, corner), right = point(1, corner);
  const Contour upper_line =
      smooth_open({left, point(-0.5f, sag * 0.6f), point(0, sag), point(0.5f, sag * 0.6f), right});
  const Contour lower_line =
      smooth_open({left, point(-0.5f, sag * 0.7f + 0.85f * gap), point(0, sag + gap),
                   point(0.5f, sag * 0.7f + 0.85f * gap), right});
  const float up = who.upper_lip, low = who.lower_lip, dip = who.cupid * up;
  const auto close = [](Contour line, const Contour& back) {
    line.insert(line.end(), back.rbegin(), back.rend());
    return line;
  };
  const Contour top =
      smooth_open({left, point(-0.55f, 0.3f * corner - 0.55f * up), point(-0.2f, sag - up),
                   point(0, sag - up + dip), point(0.2f, sag - up),
                   point(0.55f, 0.3f * corner - 0.55f * up), right},
                  4);
  const Contour bottom =
      smooth_open({left, point(-0.55f, 0.5f * sag + gap + 0.62f * low), point(0, sag + gap + low),
                   point(0.55f, 0.5f * sag + gap + 0.62f * low), right});
  canvas.blob(point(0, sag + gap + low + 0.07f), 0.75f * w * u, 0.1f * u, who.shade, 0.55f,
              &scene.face);
  if (gap > 0.02f) {
    const Contour inside = close(upper_line, lower_line);
    const Mask mask = canvas.mask(inside);
    canvas.fill(inside, Colour{0.32f, 0.09f, 0.11f});
    canvas.fill(ellipse(point(0, sag + gap + 0.02f), 0.5f * w * u, 0.4f * gap * u, shot.roll),
                Colour{0.82f, 0.36f, 0.38f}, 1, &mask);
    canvas.fill(stroke(upper_line, [&](float) { return 0.12f * u; }), Colour{0.97f, 0.96f, 0.93f},
                1, &mask);
  }
  canvas.fill(close(top, upper_line), who.lips * 0.86f);
  canvas.fill(close(lower_line, bottom), who.lips);
  canvas.blob(point(-0.1f * scene.shadow_side, sag + gap + 0.45f * low), 0.35f * w * u,
              0.4f * low * u, {1, 0.92f, 0.9f}, 0.45f);
  if (gap <= 0.02f) {
    canvas.fill(stroke(upper_line, [&](float t) { return u * (0.025f + 0.05f * t * (1 - t)); }),
                scene.dark * 0.8f, 0.9f);
  }
  if (who.cleft > 0 && who.beard <= BeardStyle::stubble) {
    canvas.blob(scene.on(0, who.length - 0.13f), 0.05f * u, 0.1f * u, scene.dark, 0.55f,
                &scene.face);
  }
}

void paint_beard(Scene& scene) {
  const Identity& who = scene.who;
  if (who.beard == BeardStyle::none) return;
  Canvas& canvas = scene.canvas;
  const float u = scene.unit, chin = who.length + 0.07f * scene.shot.open;
  const float nose = who.eye_y + who.nose_length, mouth = nose + who.mouth_y;
  const float w = who.mouth_width, weight = who.beard_weight;
  const auto hair = [&](float x, float y) { return who.hair * (0.6f + 0.42f * scene.light(x, y)); };
  const bool full = who.beard == BeardStyle::full, stubble = who.beard == BeardStyle::stubble;
  if (full || stubble || who.beard == BeardStyle::chin_strap) {
    const float out = full ? 1.02f + 0.05f * weight : 0.99f;
    const float drop = full ? 0.03f + 0.22f * weight : 0.0f;
    const bool strap = who.beard == BeardStyle::chin_strap;
    // Down the jaw, along the chin and back along the cheek, over the lip unless it is a strap.
    const float rows[][3] = {
        {0.99f * who.cheek, 0.12f, 0},
        {out * who.cheek, 0.4f, 0.03f},
        {out * who.jaw, 0.62f * chin, 0.1f},
        {out * (0.55f * who.jaw + 0.55f * who.chin), 0.88f * chin + drop, 0.2f},
        {out * who.chin, 0.985f * chin + drop, 0.3f}};
    Contour line;
    for (const auto& r : rows) line.push_back(scene.at(r[0], r[1], r[2]));
    line.push_back(scene.at(0, chin + drop + 0.01f, 0.33f));
    for (std::size_t i = std::size(rows); i-- > 0;) {
      line.push_back(scene.at(-rows[i][0], rows[i][1], rows[i][2]));
    }
    const float lip = strap ? mouth + 0.24f : nose + 0.12f;
    const float cheek = strap ? 0.14f : 0.0f;
    const Contour inner{scene.on(-0.9f * who.cheek, 0.15f),
                        scene.on(-0.76f * who.cheek, 0.42f + cheek),
                        scene.on(-(w + 0.2f), mouth - 0.06f + 1.3f * cheek),
                        scene.on(-0.75f * w, lip + 0.02f),
                        scene.on(0, lip),
                        scene.on(0.75f * w, lip + 0.02f),
                        scene.on(w + 0.2f, mouth - 0.06f + 1.3f * cheek),
                        scene.on(0.76f * who.cheek, 0.42f + cheek),
                        scene.on(0.9f * who.cheek, 0.15f)};
    Contour shape = smooth_open(line, 4);
    const Contour back = smooth_open(inner, 4);
    shape.insert(shape.end(), back.begin(), back.end());
    if (stubble) {
      canvas.fill(shape, mix(who.hair * 0.8f, who.shade, 0.35f), 0.28f + 0.2f * weight,
                  &scene.face);
    } else {
      canvas.fill(shape, hair, 0.96f, full ? nullptr : &scene.face);
    }
  }
  if (who.beard == BeardStyle::moustache || who.beard == BeardStyle::goatee) {
    const float curl = 0.1f * weight, lift = -0.05f * scene.shot.smile;
    canvas.fill(
        smooth_closed({scene.on(0, nose + 0.13f, 0.06f), scene.on(0.5f * w, nose + 0.11f, 0.06f),
                       scene.on(1.12f * w, mouth + 0.02f + lift - curl, 0.05f),
                       scene.on(0.5f * w, mouth - 0.03f, 0.06f), scene.on(0, mouth - 0.06f, 0.06f),
                       scene.on(-0.5f * w, mouth - 0.03f, 0.06f),
                       scene.on(-1.12f * w, mouth + 0.02f + lift - curl, 0.05f),
                       scene.on(-0.5f * w, nose + 0.11f, 0.06f)}),
        hair, 0.96f);
  }
  if (who.beard == BeardStyle::goatee) {
    const float wide = 0.17f + 0.13f * weight;
    const float top = mouth + 0.15f + 0.15f * scene.shot.open;
    canvas.fill(smooth_closed({scene.on(-wide, top + 0.03f, 0.04f), scene.on(0, top, 0.04f),
                               scene.on(wide, top + 0.03f, 0.04f),
                               scene.at(0.8f * wide, chin - 0.02f, 0.33f),
                               scene.at(0, chin + 0.06f + 0.12f * weight, 0.35f),
                               scene.at(-0.8f * wide, chin - 0.02f, 0.33f)}),
                hair, 0.96f);
  }
  canvas.blob(scene.at(0, chin, 0.3f), 0.2f * u, 0.1f * u, who.hair, 0.1f, &scene.face);
}

}  // namespace

void paint_features(Scene& scene) {
  paint_marks(scene);
  for (float side : {-1.0f, 1.0f}) paint_eye(scene, side);
  paint_nose(scene);
  paint_beard(scene);
  paint_mouth(scene);
  for (float side : {-1.0f, 1.0f}) paint_brow(scene, side);
}

void paint_glasses(Scene& scene) {
  const Identity& who = scene.who;
  if (who.glasses == GlassesStyle::none) return;
  Canvas& canvas = scene.canvas;
  const float u = scene.unit, r = who.glasses_size, lift = 0.12f, y = who.eye_y + 0.03f;
  const float gap = std::max(who.eye_gap, r + 0.05f);
  const float power = who.glasses == GlassesStyle::round ? 1.0f : 0.62f;
  const float high = who.glasses == GlassesStyle::round ? 1.0f : 0.78f;
  const float width = (who.glasses == GlassesStyle::half_rim ? 0.05f : 0.065f) * u;
  const auto weight = [&](float) { return width; };
  for (float side : {-1.0f, 1.0f}) {
    Contour rim;
    for (int i = 0; i <= 24; ++i) {
      const float a = 6.2831853f * static_cast<float>(i) / 24, c = std::cos(a), s = std::sin(a);
      const float x = std::copysign(std::pow(std::fabs(c), power), c);
      const float v = std::copysign(std::pow(std::fabs(s), power), s);
      rim.push_back(scene.on(side * gap + r * x, y + r * high * v, lift));
    }
    canvas.fill(rim, Colour{0.92f, 0.97f, 1}, 0.16f);
    if (who.glasses == GlassesStyle::half_rim) {
      canvas.fill(stroke(Contour(rim.begin() + 12, rim.end()), weight), who.frame);
    } else {
      canvas.fill(stroke(rim, weight), who.frame);
    }
    canvas.fill(stroke({scene.on(side * (gap + r), y - 0.06f, lift),
                        scene.at(side * (who.cheek + 0.02f), y - 0.02f, -0.05f)},
                       weight),
                who.frame);
  }
  canvas.fill(
      stroke(smooth_open({scene.on(-(gap - r), y - 0.04f, lift), scene.on(0, y - 0.1f, lift + 0.1f),
                          scene.on(gap - r, y - 0.04f, lift)}),
             weight),
      who.frame);
}

}  // namespace ftrain::portraits
