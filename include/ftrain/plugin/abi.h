// The plain-data symbol that a plugin library exports, and the build string that must match.
//
// The symbol's name carries the ABI number, so a library built for another number is recognised
// without running any of its code. `build` holds what must be equal for C++ objects to cross the
// border: ABI number, compiler major, language level, string ABI, a hash of the public headers.
#pragma once

#include <cstdint>

#include "ftrain/plugin/api.h"
#include "ftrain_headers_hash.h"  // generated: FTRAIN_HEADERS_HASH

#define FTRAIN_STRINGIFY_(x) #x
#define FTRAIN_STRINGIFY(x) FTRAIN_STRINGIFY_(x)
#define FTRAIN_CONCAT_(a, b) a##b
#define FTRAIN_CONCAT(a, b) FTRAIN_CONCAT_(a, b)

#ifdef __clang__
#define FTRAIN_COMPILER "clang" FTRAIN_STRINGIFY(__clang_major__)
#else
#define FTRAIN_COMPILER "gcc" FTRAIN_STRINGIFY(__GNUC__)
#endif

#define FTRAIN_BUILD                                                                 \
  "abi" FTRAIN_STRINGIFY(                                                            \
      FTRAIN_ABI) " " FTRAIN_COMPILER                                                \
                  " c++" FTRAIN_STRINGIFY(__cplusplus) " cxx11abi" FTRAIN_STRINGIFY( \
                      _GLIBCXX_USE_CXX11_ABI) " headers " FTRAIN_HEADERS_HASH

namespace ftrain {
class Registry;
}

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
#define FTRAIN_PLUGIN(plugin, registry)                                   \
  static void ftrain_setup_##plugin(ftrain::Registry&);                   \
  extern "C" FTRAIN_API const FtrainPlugin FTRAIN_PLUGIN_SYMBOL;          \
  extern "C" const FtrainPlugin FTRAIN_PLUGIN_SYMBOL = {                  \
      sizeof(FtrainPlugin), #plugin, FTRAIN_PLUGIN_VERSION, FTRAIN_BUILD, \
      [](ftrain::Registry* r) { ftrain_setup_##plugin(*r); }};            \
  static void ftrain_setup_##plugin(ftrain::Registry& registry)
