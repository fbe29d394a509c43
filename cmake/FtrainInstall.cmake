# Installation and the package that find_package(ftrain) finds.
include(CMakePackageConfigHelpers)

install(TARGETS ftrain_core EXPORT ftrain LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY core DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ftrain
        FILES_MATCHING PATTERN "*.h" PATTERN "*.cuh")
install(FILES ${PROJECT_BINARY_DIR}/generated/ftrain_headers_hash.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ftrain)
install(FILES heads/margin_formula.h heads/margin_cpu.h heads/margin_cuda.cuh
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ftrain/heads)
install(FILES plugins/optimizers/device_update.h plugins/optimizers/update_cuda.cuh
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ftrain/plugins/optimizers)
install(EXPORT ftrain NAMESPACE ftrain:: FILE ftrainTargets.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/ftrain)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ftrainConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
file(WRITE ${PROJECT_BINARY_DIR}/ftrainConfig.cmake
     "include(\${CMAKE_CURRENT_LIST_DIR}/ftrainTargets.cmake)
include(\${CMAKE_CURRENT_LIST_DIR}/FtrainPlugin.cmake)
")
install(FILES ${PROJECT_BINARY_DIR}/ftrainConfig.cmake
              ${PROJECT_BINARY_DIR}/ftrainConfigVersion.cmake cmake/FtrainPlugin.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/ftrain)
