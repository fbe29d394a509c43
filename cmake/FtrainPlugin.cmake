# CMake 3.25 does not know yet that nvcc has C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()

# ftrain_add_plugin(NAME SOURCE... [CUDA SOURCE...] [LIBRARIES LIB...] [INTERNAL])
#
# Builds the plugin library NAME.so, linked to the core, never unloaded, with every symbol defined.
# The sources after CUDA are device code: compiled where CMake's language CUDA is enabled, with
# FTRAIN_CUDA defined for all sources and the CUDA runtime linked statically; left out elsewhere.
# INTERNAL, in the tree alone: its sources include private headers of the core.
# In the tree it goes into the plugin folder of the build; elsewhere beside the build's other files.
function(ftrain_add_plugin name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "INTERNAL" "" "LIBRARIES;CUDA")
  add_library(${name} MODULE ${ARG_UNPARSED_ARGUMENTS})
  set_target_properties(${name} PROPERTIES PREFIX "" CXX_VISIBILITY_PRESET hidden
                        VISIBILITY_INLINES_HIDDEN ON)
  target_compile_features(${name} PRIVATE cxx_std_20)
  target_link_options(${name} PRIVATE -Wl,-z,nodelete -Wl,-z,defs)
  if(ARG_CUDA AND CMAKE_CUDA_COMPILER)
    target_sources(${name} PRIVATE ${ARG_CUDA})
    target_compile_definitions(${name} PRIVATE FTRAIN_CUDA)
    set_target_properties(${name} PROPERTIES CUDA_VISIBILITY_PRESET hidden
                                             CUDA_RUNTIME_LIBRARY Static)
  endif()
  if(TARGET ftrain_flags) # inside the tree
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${FTRAIN_PLUGIN_DIRECTORY}
                          INSTALL_RPATH "$ORIGIN/..")
    target_link_libraries(${name} PRIVATE ftrain_flags)
    target_compile_definitions(${name} PRIVATE FTRAIN_PLUGIN_VERSION="${PROJECT_VERSION}")
    set_property(GLOBAL APPEND PROPERTY FTRAIN_PLUGINS ${name})
    install(TARGETS ${name} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/ftrain)
  endif()
  if(FTRAIN_WARNINGS) # elsewhere: as find_package(ftrain) sets them
    target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${FTRAIN_WARNINGS}>")
  endif()
  if(ARG_INTERNAL)
    target_compile_definitions(${name} PRIVATE FTRAIN_INTERNAL)
  endif()
  target_link_libraries(${name} PRIVATE ftrain::core ${ARG_LIBRARIES})
endfunction()
