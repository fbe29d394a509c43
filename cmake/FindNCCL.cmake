# NCCL beside the CUDA toolkit: find_package(NCCL) gives NCCL::nccl (the library and its header),
# NCCL_FOUND and NCCL_VERSION. NCCL_ROOT names another place.
get_filename_component(nccl_toolkit "${CMAKE_CUDA_COMPILER}" DIRECTORY)
get_filename_component(nccl_toolkit "${nccl_toolkit}/.." ABSOLUTE)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${NCCL_ROOT} ${nccl_toolkit} /usr/local/cuda
          PATH_SUFFIXES include)
find_library(NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ${NCCL_ROOT} ${nccl_toolkit}
             /usr/local/cuda PATH_SUFFIXES lib64 lib)
mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)
if(NCCL_INCLUDE_DIR AND EXISTS ${NCCL_INCLUDE_DIR}/nccl.h)
  set(nccl_parts)
  foreach(part MAJOR MINOR PATCH)
    file(STRINGS ${NCCL_INCLUDE_DIR}/nccl.h line REGEX "^#define NCCL_${part} [0-9]+")
    string(REGEX MATCH "[0-9]+" line "${line}")
    list(APPEND nccl_parts ${line})
  endforeach()
  list(JOIN nccl_parts . NCCL_VERSION)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR
                                  VERSION_VAR NCCL_VERSION)
if(NCCL_FOUND AND NOT TARGET NCCL::nccl)
  add_library(NCCL::nccl SHARED IMPORTED)
  set_target_properties(NCCL::nccl PROPERTIES IMPORTED_LOCATION ${NCCL_LIBRARY}
                                              INTERFACE_INCLUDE_DIRECTORIES ${NCCL_INCLUDE_DIR})
endif()
