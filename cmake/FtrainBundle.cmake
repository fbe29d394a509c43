# `cpack` in the build folder makes ftrain-VERSION-SYSTEM-PROCESSOR.tar.gz: the installation, the
# shared libraries that it needs, the GPU's tests and the comparison with PyTorch, to be unpacked
# anywhere. See docs/gpu.md.
get_property(plugins GLOBAL PROPERTY FTRAIN_PLUGINS)
set(files "")
foreach(target ftrain ftrain_core ${plugins})
  list(APPEND files "$<TARGET_FILE:${target}>")
endforeach()
install(CODE "set(bundled_files \"${files}\")\nset(bundled_folder \"${CMAKE_INSTALL_LIBDIR}\")"
        COMPONENT bundle EXCLUDE_FROM_ALL)
install(SCRIPT ${CMAKE_CURRENT_LIST_DIR}/bundle_libraries.cmake COMPONENT bundle EXCLUDE_FROM_ALL)

set(share ${CMAKE_INSTALL_DATADIR}/ftrain)
install(DIRECTORY configs DESTINATION ${share} COMPONENT bundle EXCLUDE_FROM_ALL)
install(PROGRAMS bench/gpu bench/gpu.sh DESTINATION ${share}/bench COMPONENT bundle EXCLUDE_FROM_ALL)
install(FILES bench/common.py bench/job.toml DESTINATION ${share}/bench COMPONENT bundle
        EXCLUDE_FROM_ALL)
install(FILES bench/peer/gpu_step.py bench/peer/timing.py DESTINATION ${share}/bench/peer
        COMPONENT bundle EXCLUDE_FROM_ALL)
install(FILES tests/parity/peer.py DESTINATION ${share}/tests/parity COMPONENT bundle
        EXCLUDE_FROM_ALL)
foreach(test cuda_gpu_test cuda_program_test)
  if(TARGET ${test})
    set_target_properties(${test} PROPERTIES INSTALL_RPATH "$ORIGIN/../../lib")
    install(TARGETS ${test} RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/ftrain
            COMPONENT bundle EXCLUDE_FROM_ALL)
  endif()
endforeach()

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_NAME ftrain)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_FILE_NAME ftrain-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_STRIP_FILES ON)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_COMPONENT_INCLUDE_TOPLEVEL_DIRECTORY ON)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_COMPONENTS_ALL Unspecified bundle)
include(CPack)
