// Who is in a portrait (Identity) and how they were caught (Shot): the numbers behind an image.
//
// Both are pure functions of the seed and the indices, by Philox, so any image can be rendered on
// its own, in any order, on any thread. Identities from `held_out` on are for verification only.
// Lengths are in head units: the face is about 2 wide, the eyes lie at y = 0, y points down, z at
// the viewer. Failure: none.
#pragma once

#include <cstdint>

#include "datasets/portraits/canvas.h"

namespace ftrain::portraits {

// The first identity that training never draws.
inline constexpr std::uint64_t held_out = std::uint64_t{1} << 40;

enum class HairStyle {
  bald,
  buzz,
  parted,
  quiff,
  spiky,
  receding,
  curls,
  afro,
  bowl,
  bob,
  long_centre,
  long_side,
  waves,
  bun,
  ponytail,
  count
};
enum class BeardStyle { none, stubble, moustache, goatee, chin_strap, full };
enum class GlassesStyle { none, round, square, half_rim };

struct Spot {
  float x = 0, y = 0, size = 0;
};

struct Identity {
  // Outline: half widths at forehead, cheekbones, jaw and chin, and the chin's depth.
  float temple, cheek, jaw, chin, length, crown;
  Colour skin, shade;  // lit and in shadow
  Colour lips, iris, hair;
  float eye_y, eye_gap, eye_width, eye_height, eye_tilt, lid, lashes;
  float brow_height, brow_length, brow_weight, brow_arch, brow_tilt;
  float nose_length, nose_width, nose_bridge, nose_tip;
  float mouth_y, mouth_width, upper_lip, lower_lip, cupid;
  float ear_size, ear_out;
  float blush, freckles, cleft, smile_line;
  HairStyle hair_style;
  float hair_top, hair_side, hair_line, hair_length, hair_part;  // -1 or 1: which side parts
  BeardStyle beard;
  float beard_weight;
  GlassesStyle glasses;
  float glasses_size;
  Colour frame;
  int moles;
  Spot mole[3];
  std::uint32_t freckle_seed;
};

struct Shot {
  float yaw, pitch, roll, scale, dx, dy;
  float light_x, light_y, light_z;  // towards the light, length 1
  float ambient, exposure, warmth, contrast;
  float smile, open, brow, lids, gaze_x, gaze_y;  // lids: 1 wide awake, 0 shut
  int backdrop;                                   // plain, split, disc, stripes
  float backdrop_angle, backdrop_size;
  Colour back, back_second, cloth, cloth_second;
  int collar;
  float noise, blur;
  std::uint64_t noise_key;
};

Identity identity_of(std::uint64_t seed, std::uint64_t identity);
Shot shot_of(std::uint64_t seed, std::uint64_t identity, std::uint64_t sample);

}  // namespace ftrain::portraits
