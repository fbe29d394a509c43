# cuDNN 9 beside the CUDA toolkit: find_package(CUDNN) gives CUDNN::cudnn (the library and its
# headers), CUDNN_FOUND and CUDNN_VERSION. CUDNN_ROOT names another place.
get_filename_component(cudnn_toolkit "${CMAKE_CUDA_COMPILER}" DIRECTORY)
get_filename_component(cudnn_toolkit "${cudnn_toolkit}/.." ABSOLUTE)
find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${CUDNN_ROOT} ${cudnn_toolkit} /usr/local/cuda
          PATH_SUFFIXES include)
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDNN_ROOT} ${cudnn_toolkit}
             /usr/local/cuda PATH_SUFFIXES lib64 lib)
mark_as_advanced(CUDNN_INCLUDE_DIR CUDNN_LIBRARY)
if(CUDNN_INCLUDE_DIR AND EXISTS ${CUDNN_INCLUDE_DIR}/cudnn_version.h)
  set(cudnn_parts)
  foreach(part MAJOR MINOR PATCHLEVEL)
    file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h line REGEX "^#define CUDNN_${part} [0-9]+")
    string(REGEX MATCH "[0-9]+" line "${line}")
    list(APPEND cudnn_parts ${line})
  endforeach()
  list(JOIN cudnn_parts . CUDNN_VERSION)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CUDNN REQUIRED_VARS CUDNN_LIBRARY CUDNN_INCLUDE_DIR
                                  VERSION_VAR CUDNN_VERSION)
if(CUDNN_FOUND AND NOT TARGET CUDNN::cudnn)
  add_library(CUDNN::cudnn SHARED IMPORTED GLOBAL)
  set_target_properties(CUDNN::cudnn PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY}
                                                INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
endif()
