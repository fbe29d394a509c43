#include <numbers>

#include "datasets/portraits/scene.h"

namespace ftrain::portraits {
namespace {

enum class Edge { plain, bumps, spikes, waves };
enum class Line { plain, parted, fringe, centre, receding };

// How a style is cut. `top` and `side` are the hair's thickness over the skull, `length` is how far
// down the sides go, `behind` the same for hair that hangs behind the neck (0: none).
struct Cut {
  float top, side, length, lock, behind;
  Edge edge;
  float bump;
  int bumps;
  Line line;
};

Cut cut_of(const Identity& who) {
  const float t = who.hair_top, s = who.hair_side, l = who.hair_length;
  switch (who.hair_style) {
    case HairStyle::bald:
      break;
    case HairStyle::buzz:
      return {
          0.05f, 0.02f, 0.02f, 0.1f, 0, Edge::plain, 0, 0, l < 0.5f ? Line::plain : Line::receding};
    case HairStyle::parted:
      return {0.14f + 0.14f * t, 0.03f + 0.08f * s, 0.12f, 0.13f, 0, Edge::plain, 0, 0,
              Line::parted};
    case HairStyle::quiff:
      return {0.3f + 0.16f * t, 0.02f + 0.05f * s, 0.05f, 0.11f, 0, Edge::waves, 0.05f, 3,
              Line::plain};
    case HairStyle::spiky:
      return {0.2f + 0.12f * t,
              0.06f + 0.05f * s,
              0.1f,
              0.13f,
              0,
              Edge::spikes,
              0.16f,
              9 + static_cast<int>(3 * l),
              Line::plain};
    case HairStyle::receding:
      return {0.06f + 0.06f * t, 0.06f + 0.08f * s, 0.15f, 0.14f, 0, Edge::plain, 0, 0,
              Line::receding};
    case HairStyle::curls:
      return {0.18f + 0.12f * t,
              0.1f + 0.1f * s,
              0.2f,
              0.2f,
              0,
              Edge::bumps,
              0.1f,
              13 + static_cast<int>(4 * l),
              Line::plain};
    case HairStyle::afro:
      return {0.34f + 0.16f * t, 0.3f + 0.2f * s, 0.35f, 0.3f,       0,
              Edge::bumps,       0.06f,           19,    Line::plain};
    case HairStyle::bowl:
      return {0.14f + 0.1f * t, 0.1f + 0.06f * s, 0.3f, 0.22f, 0, Edge::plain, 0, 0, Line::fringe};
    case HairStyle::bob:
      return {0.14f + 0.1f * t,
              0.16f + 0.1f * s,
              0.75f + 0.4f * l,
              0.3f,
              0.9f + 0.4f * l,
              Edge::plain,
              0,
              0,
              t < 0.6f ? Line::fringe : Line::parted};
    case HairStyle::long_centre:
      return {0.12f + 0.08f * t, 0.12f + 0.08f * s, 1.5f + 0.4f * l, 0.3f, 2.4f, Edge::plain, 0, 0,
              Line::centre};
    case HairStyle::long_side:
      return {0.16f + 0.12f * t, 0.14f + 0.08f * s, 1.4f + 0.5f * l, 0.28f, 2.4f, Edge::plain, 0, 0,
              Line::parted};
    case HairStyle::waves:
      return {0.18f + 0.1f * t,
              0.22f + 0.1f * s,
              1.4f + 0.4f * l,
              0.36f,
              2.2f,
              Edge::waves,
              0.05f,
              9,
              l < 0.5f ? Line::centre : Line::parted};
    case HairStyle::bun:
    case HairStyle::ponytail:
      return {0.08f + 0.08f * t,
              0.03f + 0.03f * s,
              0.12f,
              0.1f,
              0,
              Edge::plain,
              0,
              0,
              l < 0.35f  ? Line::fringe
              : l < 0.7f ? Line::plain
                         : Line::centre};
    case HairStyle::count:
      break;
  }
  return {};
}

// From the right side's lower end over the top to the left one's; `grow` thickens the whole.
Contour outer(const Scene& scene, const Cut& cut, float length, float grow, float depth) {
  const Identity& who = scene.who;
  const float wide = std::max(who.temple, 0.98f * who.cheek) + cut.side + grow;
  const float middle = -0.22f, high = who.crown + cut.top + grow + middle;
  const float lean = cut.edge == Edge::waves && cut.bumps == 3 ? 0.12f * who.hair_part : 0.0f;
  Contour out;
  const auto ripple = [&](float t) {  // 0 to 1 along the contour
    const float phase = t * static_cast<float>(cut.bumps) * std::numbers::pi_v<float>;
    switch (cut.edge) {
      case Edge::bumps:
        return cut.bump * std::fabs(std::sin(phase));
      case Edge::waves:
        return cut.bump * std::sin(2 * phase);
      case Edge::spikes: {
        const float at = t * static_cast<float>(cut.bumps);
        const float saw = at - std::floor(at);
        return cut.bump * (saw < 0.65f ? saw / 0.65f : (1 - saw) / 0.35f) * smooth(0, 0.2f, t) *
               smooth(1, 0.8f, t);
      }
      case Edge::plain:
        break;
    }
    return 0.0f;
  };
  const float drop = length - middle;
  const bool rounded = cut.edge == Edge::bumps;  // the outline curves back in below the ears
  const int hanging = drop > 0.6f || rounded ? 8 : 2;
  const float ends = hanging > 2 ? (rounded ? 0.14f : 0.25f) : 0.0f;  // a side's share of the whole
  const auto side = [&](float sign, float part, float t) {  // part: 0 at the ear's height, 1 below
    const float flare =
        rounded ? std::sqrt(1 - 0.72f * part * part) : 1 + (drop > 0.6f ? 0.1f : -0.06f) * part;
    out.push_back(scene.at(sign * (wide * flare + ripple(t)), middle + drop * part, depth));
  };
  for (int i = 0; i < hanging; ++i) {
    side(1, 1 - static_cast<float>(i) / hanging, ends * static_cast<float>(i) / hanging);
  }
  const int arc = 48;
  for (int i = 0; i <= arc; ++i) {
    const float t = static_cast<float>(i) / arc, angle = std::numbers::pi_v<float> * t;
    const float r = 1 + ripple(ends + (1 - 2 * ends) * t);
    const float y = std::sin(angle) * high * r;
    // A little squarer than an ellipse.
    const float x =
        std::cos(angle) * wide * r * (1 + 0.05f * std::sin(2 * angle) * std::sin(2 * angle));
    out.push_back(scene.at(x + lean * y, middle - y, depth));
  }
  for (int i = 1; i <= hanging; ++i) {
    side(-1, static_cast<float>(i) / hanging, 1 - ends + ends * static_cast<float>(i) / hanging);
  }
  return out;
}

// Across the forehead from the left temple to the right one, in head units.
Contour hairline(const Identity& who, Line line) {
  const float side = 0.9f * who.temple, shift = 0.16f * (who.hair_line - 0.5f);
  Contour points;
  switch (line) {
    case Line::plain:
      points = {{-side, -0.34f}, {-0.84f * side, -0.62f}, {-0.45f, -0.75f}, {0, -0.77f},
                {0.45f, -0.75f}, {0.84f * side, -0.62f},  {side, -0.34f}};
      break;
    case Line::parted:
      points = {{-side, -0.12f}, {-0.88f * side, -0.36f}, {-0.4f, -0.52f}, {0.05f, -0.68f},
                {0.4f, -0.9f},   {0.8f * side, -0.56f},   {side, -0.2f}};
      break;
    case Line::fringe:
      points = {{-side, -0.06f}, {-0.82f * side, -0.4f}, {-0.4f, -0.46f}, {0, -0.47f},
                {0.4f, -0.46f},  {0.82f * side, -0.4f},  {side, -0.06f}};
      break;
    case Line::centre:
      points = {{-side, -0.02f}, {-0.84f * side, -0.38f}, {-0.42f, -0.68f}, {0, -0.92f},
                {0.42f, -0.68f}, {0.84f * side, -0.38f},  {side, -0.02f}};
      break;
    case Line::receding:
      points = {{-side, -0.3f},  {-0.78f * side, -0.72f}, {-0.48f, -0.98f}, {0, -0.86f},
                {0.48f, -0.98f}, {0.78f * side, -0.72f},  {side, -0.3f}};
      break;
  }
  for (Point& p : points) p = {p.x * who.hair_part, p.y + shift * smooth(0, -0.5f, p.y)};
  if (who.hair_part < 0) std::reverse(points.begin(), points.end());
  return points;
}

Contour front(const Scene& scene, const Cut& cut, float drop) {
  const Identity& who = scene.who;
  Contour shape = outer(scene, cut, cut.length, 0, 0.05f);
  const float edge = std::max(who.temple, 0.98f * who.cheek) + cut.side;
  const bool hangs = cut.length > 0.6f;
  // A turned head moves the hairline's far end to the rim: keep it within the hair's outline.
  const float middle = -0.22f, high = who.crown + cut.top + middle;
  const auto within = [&](float x, float y, float z) {
    Point p = scene.turned(x, y, z);
    const float rise = std::max(middle - p.y, 0.0f) / high;
    const float limit = edge * std::sqrt(std::max(1 - rise * rise, 0.0f)) - 0.03f;
    p.x = std::clamp(p.x, -std::max(limit, 0.0f), std::max(limit, 0.0f));
    return scene.place(p);
  };
  Contour inner;
  for (Point p : hairline(who, cut.line)) {
    inner.push_back(within(p.x, p.y + drop, Scene::depth(p.x, p.y + drop) + 0.05f));
  }
  // The side locks, in front of the ears for long hair, as sideburns for short.
  Contour left, right;
  const int steps = hangs ? 3 : 1;
  for (int i = steps; i >= 1; --i) {
    const float part = static_cast<float>(i) / steps;
    const float y = cut.length * part;
    const float x =
        hangs ? edge * (1 + 0.1f * part) - cut.lock * (1 - 0.25f * part) : edge * 0.98f - cut.lock;
    left.push_back(within(-x, y, hangs ? 0.15f : 0.3f));
    right.push_back(within(x, y, hangs ? 0.15f : 0.3f));
  }
  Contour line = left;
  line.insert(line.end(), inner.begin(), inner.end());
  line.insert(line.end(), right.rbegin(), right.rend());
  const Contour curve = smooth_open(line, 5);
  shape.insert(shape.end(), curve.begin(), curve.end());
  return shape;
}

// Hair's colour at a pixel: light, a band of gloss around the crown, strands.
Colour hair_at(const Scene& scene, float x, float y, const Cut& cut) {
  const Identity& who = scene.who;
  const float u = (x - scene.centre.x) / scene.unit, v = (y - scene.centre.y) / scene.unit;
  const float a = u * scene.roll_cos + v * scene.roll_sin;
  const float b = v * scene.roll_cos - u * scene.roll_sin;
  const bool curly = cut.edge == Edge::bumps;
  const float fan =
      curly ? 3 * a + 1.5f * b : (a - 0.3f * who.hair_part) / (0.55f + std::fabs(b + 0.95f));
  const float wave = fan * 4.5f - std::floor(fan * 4.5f);
  const float strand = 0.5f - 4 * (wave - 0.5f) * (wave - 0.5f);
  const float ring = std::sqrt(a * a * 0.55f + (b + 0.05f) * (b + 0.05f));
  const float band = smooth(0.2f, 0, std::fabs(ring - 0.98f)) * smooth(0.1f, -0.5f, b);
  const float light = 0.66f + 0.38f * scene.light(x, y) + 0.06f * strand;
  const Colour gloss = mix(who.hair, {1, 0.95f, 0.88f}, 0.35f);
  return mix(who.hair * light, gloss, band * (curly ? 0.1f : 0.28f));
}

}  // namespace

void paint_hair_behind(Scene& scene) {
  const Identity& who = scene.who;
  const Cut cut = cut_of(who);
  const Colour deep = who.hair * 0.66f;
  Canvas& canvas = scene.canvas;
  if (who.hair_style != HairStyle::bald) {  // seen past the far temple of a turned head
    canvas.fill(outer(scene, cut, std::min(cut.length, 0.2f), -0.03f, 0.05f), deep);
  }
  if (cut.behind > 0) {
    canvas.fill(outer(scene, cut, cut.behind, -0.01f, -0.15f), deep);
  } else if (who.hair_style == HairStyle::afro) {
    canvas.fill(ellipse(scene.at(0, -0.35f, -0.1f), (who.temple + cut.side) * scene.unit,
                        0.98f * scene.unit),
                deep);
  }
  const auto shade = [&](float x, float y) { return hair_at(scene, x, y, cut); };
  if (who.hair_style == HairStyle::bun) {
    const float r = (0.26f + 0.16f * who.hair_side) * scene.unit;
    const Point bun = scene.at(0, -who.crown - 0.2f - 0.1f * who.hair_side, -0.35f);
    canvas.fill(ellipse(bun, 1.15f * r, r, scene.shot.roll), shade);
    canvas.blob(bun + Point{0, 0.75f * r}, 0.9f * r, 0.5f * r, deep, 0.8f);
  } else if (who.hair_style == HairStyle::ponytail) {
    const float side = who.hair_part, fall = 0.9f + 0.8f * who.hair_side;
    const Contour tail = smooth_open(
        {scene.at(side * 0.5f, -0.95f, -0.5f), scene.at(side * 1.12f, -0.75f, -0.5f),
         scene.at(side * 1.36f, 0.0f, -0.4f), scene.at(side * 1.24f, 0.6f * fall, -0.3f),
         scene.at(side * 1.42f, fall, -0.3f)});
    canvas.fill(
        stroke(tail,
               [&](float t) { return scene.unit * (0.24f + 1.3f * t * (1 - t) * (1.3f - t)); }),
        [&](float x, float y) { return shade(x, y) * 0.9f; });
  }
}

void paint_hair(Scene& scene) {
  const Identity& who = scene.who;
  if (who.hair_style == HairStyle::bald) {
    scene.canvas.blob(scene.on(0.25f * -scene.shadow_side, -0.8f), 0.45f * scene.unit,
                      0.22f * scene.unit, {1, 0.97f, 0.93f}, 0.4f, &scene.face);
    return;
  }
  const Cut cut = cut_of(who);
  const bool buzz = who.hair_style == HairStyle::buzz;
  if (!buzz) {  // the hair's shadow on the forehead
    scene.canvas.fill(front(scene, cut, 0.07f), who.shade * 0.92f, 0.5f, &scene.face);
  }
  scene.canvas.fill(
      front(scene, cut, 0), [&](float x, float y) { return hair_at(scene, x, y, cut); },
      buzz ? 0.78f : 1.0f);
}

}  // namespace ftrain::portraits
