# Writes OUTPUT, a header with a hash for each kind of plugin: of ftrain/KIND.h and of everything in
# INCLUDE that it includes, without comments and white space. A header of ftrain/ stands for the kind
# of its name; ftrain/plugin.h is what every plugin includes. With CORE, a folder, a further header
# INTERNAL with one hash of its headers and the public ones: for plugins that are built together with the core.
# A file is rewritten only when it changed, so that touching a header rebuilds nothing.
cmake_minimum_required(VERSION 3.25)

function(content_hash file result)
  file(READ ${file} text)
  string(REGEX REPLACE "//[^\n]*" "" text "${text}")
  string(REGEX REPLACE "[ \t\r\n]+" "" text "${text}")
  string(SHA256 hash "${text}")
  set(${result} ${hash} PARENT_SCOPE)
endfunction()

# All headers of INCLUDE that `header` leads to, itself among them, sorted.
function(closure header result)
  set(found ${header})
  set(left ${header})
  while(left)
    list(POP_FRONT left now)
    file(STRINGS ${INCLUDE}/${now} lines REGEX "^#include \"ftrain/")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "^#include \"([^\"]+)\".*" "\\1" next "${line}")
      if(NOT next IN_LIST found)
        list(APPEND found ${next})
        list(APPEND left ${next})
      endif()
    endforeach()
  endwhile()
  list(SORT found)
  set(${result} ${found} PARENT_SCOPE)
endfunction()

function(hash_of headers result)
  set(all "")
  foreach(header IN LISTS headers)
    content_hash(${header} hash)
    string(APPEND all ${hash})
  endforeach()
  string(SHA256 all "${all}")
  string(SUBSTRING ${all} 0 12 all)
  set(${result} ${all} PARENT_SCOPE)
endfunction()

function(write_if_changed file text)
  set(old "")
  if(EXISTS ${file})
    file(READ ${file} old)
  endif()
  if(NOT old STREQUAL text)
    file(WRITE ${file} "${text}")
  endif()
endfunction()

file(GLOB kinds RELATIVE ${INCLUDE} ${INCLUDE}/ftrain/*.h)
list(SORT kinds)
set(lines "")
foreach(header IN LISTS kinds)
  closure(${header} headers)
  list(TRANSFORM headers PREPEND ${INCLUDE}/)
  hash_of("${headers}" hash)
  get_filename_component(kind ${header} NAME_WE)
  if(kind STREQUAL "plugin")
    set(border ${hash})
  else()
    string(APPEND lines "    {\"${kind}\", \"${hash}\"},\n")
  endif()
endforeach()
write_if_changed(
  ${OUTPUT}
  "// Generated: hashes of the public headers, by kind of plugin.
#pragma once

#define FTRAIN_HEADERS_HASH \"${border}\"

namespace ftrain {

struct KindHash {
  const char *kind, *hash;
};
inline constexpr KindHash kind_hashes[] = {
${lines}};

}  // namespace ftrain
")

if(INTERNAL)
  set(headers "")
  foreach(folder ${INCLUDE} ${CORE})
    file(GLOB_RECURSE more ${folder}/*.h ${folder}/*.cuh)
    list(APPEND headers ${more})
  endforeach()
  list(SORT headers)
  hash_of("${headers}" hash)
  write_if_changed(${INTERNAL} "#define FTRAIN_INTERNAL_HASH \"${hash}\"\n")
endif()
