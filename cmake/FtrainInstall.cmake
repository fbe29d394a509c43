# Installation and the package that find_package(ftrain) finds.
include(CMakePackageConfigHelpers)

install(TARGETS ftrain_core EXPORT ftrain LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/ftrain DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h" PATTERN "*.cuh")
install(FILES ${PROJECT_BINARY_DIR}/generated/ftrain_headers_hash.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT ftrain NAMESPACE ftrain:: FILE ftrainTargets.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/ftrain)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ftrainConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
configure_file(${CMAKE_CURRENT_LIST_DIR}/ftrainConfig.cmake.in
               ${PROJECT_BINARY_DIR}/ftrainConfig.cmake @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/ftrainConfig.cmake
              ${PROJECT_BINARY_DIR}/ftrainConfigVersion.cmake cmake/FtrainPlugin.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/ftrain)
