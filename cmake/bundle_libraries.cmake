# Copies the shared libraries that `bundled_files` need into `bundled_folder` of the installation.
include(${CMAKE_CURRENT_LIST_DIR}/bundle_exclusions.cmake)
file(
  GET_RUNTIME_DEPENDENCIES
  EXECUTABLES ${bundled_files}
  RESOLVED_DEPENDENCIES_VAR found
  UNRESOLVED_DEPENDENCIES_VAR missing
  PRE_EXCLUDE_REGEXES ${bundle_exclusions} "^libftrain_core")
if(missing)
  message(FATAL_ERROR "shared libraries that nothing provides: ${missing}")
endif()
foreach(library IN LISTS found)
  file(INSTALL "${library}" DESTINATION "${CMAKE_INSTALL_PREFIX}/${bundled_folder}"
       TYPE SHARED_LIBRARY FOLLOW_SYMLINK_CHAIN)
endforeach()
