# Flags that every target of the tree shares: link to ftrain_flags.
add_library(ftrain_flags INTERFACE)
# g++ 12 raises -Wrestrict and, under sanitizers, -Wmaybe-uninitialized where nothing is wrong.
set(warnings -Wall -Wextra -Wpedantic -Wno-psabi -Wno-restrict $<$<BOOL:${FTRAIN_WERROR}>:-Werror>)
target_compile_options(ftrain_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:${warnings}>")
# Of device code nvcc's own warnings count: what it hands to the host's compiler is not ours to tidy.
target_compile_options(
  ftrain_flags
  INTERFACE "$<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${FTRAIN_WERROR}>>:-Werror=all-warnings>")
# One binary serves every x86-64 machine: no -march here. Faster instructions are chosen at run
# time by oneDNN and Highway. Contraction is off so that the plain loops of the oracle round alike
# on every compiler.
target_compile_options(ftrain_flags INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off>)
# A bundle's libraries are found by those of ours that need them, and by what those need: RPATH is
# handed on so, RUNPATH is not.
target_link_options(ftrain_flags INTERFACE -Wl,--disable-new-dtags)
if(FTRAIN_SANITIZE)
  set(sanitizers -Wno-maybe-uninitialized -fsanitize=address,undefined
                 -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_compile_options(ftrain_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:${sanitizers}>")
  target_link_options(ftrain_flags INTERFACE -fsanitize=address,undefined)
endif()
