# CUDA where nvcc is installed: plugins then carry device code beside the host's, for the
# architectures of CMAKE_CUDA_ARCHITECTURES. The CUDA runtime is linked statically, so that they load
# on machines without a driver.
option(FTRAIN_CUDA "Compile device code where nvcc is found" ON)
if(FTRAIN_CUDA)
  include(CheckLanguage)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90a)
  endif()
  # Where NVIDIA's packages put it, which need not be in PATH.
  find_program(FTRAIN_NVCC_PROGRAM nvcc PATHS /usr/local/cuda/bin)
  mark_as_advanced(FTRAIN_NVCC_PROGRAM)
  if(FTRAIN_NVCC_PROGRAM AND NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    set(CMAKE_CUDA_COMPILER ${FTRAIN_NVCC_PROGRAM})
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    find_package(CUDAToolkit REQUIRED)
    # Without it there is no plugin `nccl`.
    find_package(NCCL 2.18)
  else()
    message(STATUS "No nvcc: plugins are built without device code")
  endif()
endif()
set(FTRAIN_NVCC ${CMAKE_CUDA_COMPILER})

# ftrain_add_cuda_library(NAME SOURCE...): a static library of device code; only where there is nvcc.
function(ftrain_add_cuda_library name)
  add_library(${name} STATIC ${ARGN})
  set_target_properties(${name} PROPERTIES CUDA_VISIBILITY_PRESET hidden
                                           CUDA_RUNTIME_LIBRARY Static)
  target_link_libraries(${name} PUBLIC ftrain::core ftrain_flags)
endfunction()
