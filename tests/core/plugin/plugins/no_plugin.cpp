// A shared library, but no plugin.
#include "ftrain/plugin/api.h"

extern "C" FTRAIN_API int answer();
extern "C" int answer() {
  return 42;
}
