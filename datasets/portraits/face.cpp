#include "datasets/portraits/face.h"

#include <array>
#include <numbers>
#include <span>

#include "ftrain/base/philox.h"

namespace ftrain::portraits {
namespace {

constexpr float pi = std::numbers::pi_v<float>;

// A run of random numbers: one Philox stream read in order.
class Draw {
 public:
  Draw(std::uint64_t key, std::uint64_t stream) : key_(key), stream_(stream) {}
  std::uint32_t bits() {
    if (lane_ == 4) block_ = Philox::at(key_, stream_, position_++), lane_ = 0;
    return block_.word[lane_++ % 4];
  }
  float unit() { return static_cast<float>(bits() >> 8) * (1.0f / 16777216.0f); }
  float between(float low, float high) { return low + (high - low) * unit(); }
  // Bell-shaped around the middle, same bounds.
  float bell(float low, float high) {
    return low + (high - low) * (unit() + unit() + unit()) * (1.0f / 3.0f);
  }
  bool chance(float p) { return unit() < p; }
  int below(int n) { return static_cast<int>(unit() * static_cast<float>(n)); }
  // An index with probability in proportion to its weight.
  int weighted(std::span<const float> weights) {
    float sum = 0;
    for (float w : weights) sum += w;
    float at = unit() * sum;
    for (std::size_t i = 0; i + 1 < weights.size(); ++i) {
      if (at < weights[i]) return static_cast<int>(i);
      at -= weights[i];
    }
    return static_cast<int>(weights.size()) - 1;
  }

 private:
  std::uint64_t key_, stream_, position_ = 0;
  Philox block_{};
  unsigned lane_ = 4;
};

constexpr Colour rgb(int r, int g, int b) {
  return {r / 255.0f, g / 255.0f, b / 255.0f};
}

constexpr std::array skins{rgb(255, 226, 206), rgb(248, 208, 180), rgb(237, 187, 152),
                           rgb(220, 162, 122), rgb(194, 132, 92),  rgb(160, 102, 68),
                           rgb(124, 77, 52),   rgb(94, 58, 42)};
constexpr std::array hairs{rgb(36, 31, 36),    rgb(60, 42, 36),    rgb(96, 62, 42),
                           rgb(134, 88, 54),   rgb(132, 58, 36),   rgb(196, 98, 46),
                           rgb(176, 136, 84),  rgb(226, 188, 118), rgb(240, 224, 194),
                           rgb(146, 146, 152), rgb(224, 222, 222), rgb(62, 134, 146),
                           rgb(214, 116, 146), rgb(116, 84, 152)};
constexpr std::array irises{rgb(62, 40, 28),   rgb(104, 66, 36),  rgb(142, 104, 52),
                            rgb(84, 124, 72),  rgb(72, 126, 172), rgb(126, 150, 164),
                            rgb(60, 146, 142), rgb(48, 36, 34)};
constexpr std::array frames{rgb(36, 36, 42), rgb(120, 66, 38), rgb(168, 44, 52), rgb(44, 74, 128),
                            rgb(196, 160, 84)};
constexpr std::array backdrops{rgb(196, 222, 230), rgb(244, 222, 196), rgb(210, 226, 200),
                               rgb(232, 206, 214), rgb(214, 208, 232), rgb(246, 236, 206),
                               rgb(148, 186, 200), rgb(226, 172, 146), rgb(150, 178, 158),
                               rgb(122, 132, 168), rgb(94, 116, 128),  rgb(236, 232, 226),
                               rgb(238, 196, 120), rgb(180, 138, 154)};
constexpr std::array cloths{
    rgb(64, 88, 120), rgb(196, 86, 72),   rgb(242, 238, 230), rgb(90, 128, 106),  rgb(228, 172, 84),
    rgb(54, 56, 66),  rgb(146, 106, 148), rgb(122, 160, 186), rgb(214, 136, 130), rgb(120, 94, 78)};

template <std::size_t N>
Colour along(const std::array<Colour, N>& palette, float at) {
  const float x = clamp01(at) * (N - 1);
  const std::size_t i = std::min(static_cast<std::size_t>(x), N - 2);
  return mix(palette[i], palette[i + 1], x - static_cast<float>(i));
}

void draw_hair(Draw& draw, float darkness, Identity& who) {
  // Index by HairStyle; the cropped styles and the long ones are about equally likely.
  constexpr std::array weights{0.5f, 0.8f, 1.1f, 1.0f, 0.8f, 0.6f, 0.9f, 0.8f,
                               0.8f, 1.1f, 1.1f, 1.1f, 1.0f, 0.9f, 0.9f};
  static_assert(weights.size() == static_cast<std::size_t>(HairStyle::count));
  who.hair_style = static_cast<HairStyle>(draw.weighted(weights));
  const float fair = 1 - darkness;
  const std::array shades{2.0f,        2.0f,        1.5f,        1.2f * fair, 0.9f * fair,
                          1.0f * fair, 0.9f * fair, 1.2f * fair, 0.6f * fair, 0.6f,
                          0.5f,        0.3f,        0.35f,       0.3f};
  who.hair = hairs[draw.weighted(shades)] * draw.between(0.85f, 1.12f);
  who.hair_top = draw.between(0, 1);
  who.hair_side = draw.between(0, 1);
  who.hair_line = draw.between(0, 1);
  who.hair_length = draw.between(0, 1);
  who.hair_part = draw.chance(0.5f) ? 1.0f : -1.0f;
}

}  // namespace

Identity identity_of(std::uint64_t seed, std::uint64_t identity) {
  Draw draw(seed, mix64(identity, 0));
  Identity who{};
  const float broad = draw.between(0, 1);  // feature sizes correlate a little, as in people
  who.cheek = draw.between(0.86f, 1.04f);
  who.temple = who.cheek * draw.between(0.88f, 1.0f);
  who.jaw = who.cheek * (0.66f + 0.14f * broad + draw.between(0, 0.14f));
  who.chin = draw.between(0.22f, 0.34f) + 0.16f * broad;
  who.length = draw.between(1.12f, 1.42f);
  who.crown = draw.between(1.1f, 1.26f);

  const float darkness = draw.unit();
  who.skin = along(skins, darkness);
  const float tone = draw.between(-0.03f, 0.03f);
  who.skin = who.skin * Colour{1 + tone * 0.5f, 1, 1 - tone};
  who.shade = who.skin * Colour{0.80f, 0.63f, 0.60f};
  const Colour rose = mix(rgb(206, 92, 92), rgb(120, 50, 60), darkness);
  who.lips = mix(mix(who.skin, rose, draw.between(0.35f, 0.95f)), rgb(190, 40, 70),
                 draw.chance(0.25f) ? draw.between(0.3f, 0.8f) : 0.0f);
  const std::array eyes{1.2f,
                        1.2f,
                        0.8f * (1.2f - darkness),
                        0.9f * (1.1f - darkness),
                        1.3f * (1.1f - darkness),
                        1.0f * (1.1f - darkness),
                        0.5f * (1.1f - darkness),
                        1.0f};
  who.iris = irises[draw.weighted(eyes)] * draw.between(0.9f, 1.15f);

  who.eye_y = draw.between(-0.06f, 0.08f);
  who.eye_gap = draw.between(0.36f, 0.47f);
  who.eye_width = draw.between(0.165f, 0.225f);
  who.eye_height = draw.between(0.085f, 0.15f);
  who.eye_tilt = draw.between(-0.05f, 0.07f);
  who.lid = draw.between(0, 1);
  who.lashes = draw.between(0.025f, 0.06f);
  who.brow_height = draw.between(0.24f, 0.36f);
  who.brow_length = draw.between(0.2f, 0.28f);
  who.brow_weight = draw.between(0.045f, 0.13f);
  who.brow_arch = draw.between(0, 0.11f);
  who.brow_tilt = draw.between(-0.08f, 0.07f);
  who.nose_length = draw.between(0.4f, 0.58f);
  who.nose_width = draw.between(0.13f, 0.2f) + 0.05f * broad;
  who.nose_bridge = draw.between(0.2f, 1);
  who.nose_tip = draw.between(-0.03f, 0.05f);
  who.mouth_y = draw.between(0.26f, 0.36f);  // below the nose
  who.mouth_width = draw.between(0.25f, 0.36f) + 0.04f * broad;
  who.upper_lip = draw.between(0.035f, 0.09f);
  who.lower_lip = draw.between(0.05f, 0.12f);
  who.cupid = draw.between(0.1f, 0.5f);
  who.ear_size = draw.between(0.19f, 0.29f);
  who.ear_out = draw.between(0.02f, 0.14f);
  who.blush = draw.between(0.05f, 0.4f);
  who.freckles = draw.chance(0.22f) ? draw.between(0.4f, 1) : 0.0f;
  who.cleft = draw.chance(0.25f) ? 1.0f : 0.0f;
  who.smile_line = draw.chance(0.5f) ? draw.between(0.2f, 1) : 0.0f;

  draw_hair(draw, darkness, who);
  const bool cropped = who.hair_style <= HairStyle::bowl;
  const std::array beards{cropped ? 1.1f : 25.0f, 0.4f, 0.35f, 0.35f, 0.3f, 0.55f};
  who.beard = static_cast<BeardStyle>(draw.weighted(beards));
  who.beard_weight = draw.between(0, 1);
  const std::array glasses{2.6f, 0.4f, 0.4f, 0.3f};
  who.glasses = static_cast<GlassesStyle>(draw.weighted(glasses));
  who.glasses_size = draw.between(0.29f, 0.36f);
  who.frame = frames[draw.below(frames.size())];
  who.moles = draw.chance(0.35f) ? 1 + draw.below(3) : 0;
  for (Spot& mole : who.mole) {
    mole = {draw.between(-0.6f, 0.6f), draw.between(0.3f, 0.9f), draw.between(0.028f, 0.045f)};
  }
  who.freckle_seed = draw.bits();
  return who;
}

Shot shot_of(std::uint64_t seed, std::uint64_t identity, std::uint64_t sample) {
  Draw draw(seed, mix64(identity, sample + 1));
  Shot shot{};
  shot.yaw = draw.bell(-0.62f, 0.62f);
  shot.pitch = draw.bell(-0.32f, 0.32f);
  shot.roll = draw.bell(-0.24f, 0.24f);
  shot.scale = draw.between(0.94f, 1.07f);
  shot.dx = draw.bell(-0.16f, 0.16f);
  shot.dy = draw.bell(-0.14f, 0.14f);

  const float around = draw.between(-pi, pi), aside = draw.between(0.2f, 0.85f);
  shot.light_x = aside * std::cos(around);
  shot.light_y = aside * (0.55f * std::sin(around) - 0.35f);
  shot.light_z =
      std::sqrt(std::max(0.1f, 1 - shot.light_x * shot.light_x - shot.light_y * shot.light_y));
  shot.ambient = draw.between(0.15f, 0.6f);
  shot.exposure = draw.between(0.82f, 1.12f);
  shot.warmth = draw.bell(-0.13f, 0.13f);
  shot.contrast = draw.between(0.9f, 1.1f);

  shot.smile = draw.between(-0.25f, 1);
  shot.open = draw.chance(0.35f) ? draw.between(0.25f, 1) : 0.0f;
  shot.brow = draw.between(-0.6f, 1);
  shot.lids = draw.chance(0.07f) ? draw.between(0, 0.2f) : draw.between(0.72f, 1.05f);
  shot.gaze_x = draw.bell(-1, 1);
  shot.gaze_y = draw.bell(-0.7f, 0.7f);

  shot.backdrop = draw.below(4);
  shot.backdrop_angle = draw.between(0, 2 * pi);
  shot.backdrop_size = draw.between(0, 1);
  const int back = draw.below(backdrops.size());
  shot.back = backdrops[back] * draw.between(0.8f, 1.03f);
  shot.back_second = mix(shot.back, draw.chance(0.5f) ? rgb(255, 250, 240) : rgb(70, 76, 96),
                         draw.between(0.12f, 0.35f));
  shot.cloth = cloths[draw.below(cloths.size())];
  shot.cloth_second = cloths[draw.below(cloths.size())];
  shot.collar = draw.below(4);
  shot.noise = draw.between(0.002f, 0.016f);
  shot.blur = draw.chance(0.6f) ? draw.between(0, 0.2f) : 0.0f;
  shot.noise_key = mix64(seed ^ (std::uint64_t{draw.bits()} << 32), draw.bits());
  return shot;
}

}  // namespace ftrain::portraits
