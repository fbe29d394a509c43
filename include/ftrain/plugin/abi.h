// The plain-data symbol that a plugin library exports, and the build string that must match.
//
// The symbol's name carries the ABI number, so a library built for another number is recognised
// without running any of its code. `build` holds what must be equal for C++ objects to cross the
// border: ABI number, compiler major, language level, string ABI, the library's debug mode, and a
// hash of ftrain/plugin.h with what it includes. What a kind of plugin includes beside that
// (ftrain/backbone.h for backbones, ...) is compared where the plugin registers something of the
// kind. Hashes are of headers without comments and white space. Plugins that are built together
// with the core and see its private headers (FTRAIN_INTERNAL) carry a hash of all of these too.
#pragma once

#include <cstdint>

#include "ftrain/plugin/api.h"
#include "ftrain_headers_hash.h"  // generated: FTRAIN_HEADERS_HASH, kind_hashes

#define FTRAIN_STRINGIFY_(x) #x
#define FTRAIN_STRINGIFY(x) FTRAIN_STRINGIFY_(x)
#define FTRAIN_CONCAT_(a, b) a##b
#define FTRAIN_CONCAT(a, b) FTRAIN_CONCAT_(a, b)

#ifdef __clang__
#define FTRAIN_COMPILER "clang" FTRAIN_STRINGIFY(__clang_major__)
#else
#define FTRAIN_COMPILER "gcc" FTRAIN_STRINGIFY(__GNUC__)
#endif

#ifdef _GLIBCXX_DEBUG
#define FTRAIN_LIBRARY " glibcxx_debug"
#else
#define FTRAIN_LIBRARY ""
#endif

// clang-format off
#define FTRAIN_BUILD                                                  \
  "abi" FTRAIN_STRINGIFY(FTRAIN_ABI) " " FTRAIN_COMPILER              \
  " c++" FTRAIN_STRINGIFY(__cplusplus)                                \
  " cxx11abi" FTRAIN_STRINGIFY(_GLIBCXX_USE_CXX11_ABI) FTRAIN_LIBRARY \
  " headers " FTRAIN_HEADERS_HASH
// clang-format on

// What a plugin's build string is: of an internal one more than of others.
#ifdef FTRAIN_INTERNAL
#include "ftrain_internal_hash.h"  // generated: FTRAIN_INTERNAL_HASH
#define FTRAIN_PLUGIN_BUILD FTRAIN_BUILD " internal " FTRAIN_INTERNAL_HASH
#else
#define FTRAIN_PLUGIN_BUILD FTRAIN_BUILD
#endif

namespace ftrain {
class Registry;

// The hash of what plugins of a kind include, as this translation unit saw it; "" for kinds that
// are not ftrain's.
constexpr const char* kind_hash(const char* kind) {
  for (const KindHash& entry : kind_hashes) {
    const char *a = entry.kind, *b = kind;
    while (*a != 0 && *a == *b) ++a, ++b;
    if (*a == *b) return entry.hash;
  }
  return "";
}
}  // namespace ftrain

extern "C" {
struct FtrainPlugin {
  std::uint32_t size;  // sizeof(FtrainPlugin) as the plugin saw it
  const char* name;
  const char* version;
  const char* build;
  void (*setup)(ftrain::Registry*);
};
}

// "ftrain_plugin_v1" for ABI number 1.
#define FTRAIN_PLUGIN_SYMBOL FTRAIN_CONCAT(ftrain_plugin_v, FTRAIN_ABI)
#define FTRAIN_PLUGIN_SYMBOL_NAME "ftrain_plugin_v" FTRAIN_STRINGIFY(FTRAIN_ABI)

#ifndef FTRAIN_PLUGIN_VERSION
#define FTRAIN_PLUGIN_VERSION "0"
#endif

// FTRAIN_PLUGIN(tiny, registry) { registry.add<ftrain::Backbone, Tiny>("tiny", "one layer"); }
#define FTRAIN_PLUGIN(plugin, registry)                                          \
  static void ftrain_setup_##plugin(ftrain::Registry&);                          \
  extern "C" FTRAIN_API const FtrainPlugin FTRAIN_PLUGIN_SYMBOL;                 \
  extern "C" const FtrainPlugin FTRAIN_PLUGIN_SYMBOL = {                         \
      sizeof(FtrainPlugin), #plugin, FTRAIN_PLUGIN_VERSION, FTRAIN_PLUGIN_BUILD, \
      [](ftrain::Registry* r) { ftrain_setup_##plugin(*r); }};                   \
  static void ftrain_setup_##plugin(ftrain::Registry& registry)
