# What `cpack` packs runs by itself: unpacked elsewhere, it takes nothing from the machine but what
# bundle_libraries.cmake leaves to it.
#
#   cmake -D BUILD=... -D WORK=... -P bundle.cmake
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
get_filename_component(bin ${CMAKE_COMMAND} DIRECTORY)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGN}: ${result}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run(${bin}/cpack -G TGZ --config ${BUILD}/CPackConfig.cmake -B ${WORK})
file(GLOB archive ${WORK}/ftrain-*.tar.gz)
file(MAKE_DIRECTORY ${WORK}/elsewhere)
run(${CMAKE_COMMAND} -E chdir ${WORK}/elsewhere ${CMAKE_COMMAND} -E tar xzf ${archive})
file(GLOB home ${WORK}/elsewhere/ftrain-*)

include(${CMAKE_CURRENT_LIST_DIR}/../../cmake/bundle_exclusions.cmake)
file(GLOB libraries ${home}/lib/ftrain/*.so)
foreach(file IN ITEMS ${home}/bin/ftrain ${home}/lib/libftrain_core.so LISTS libraries)
  run(ldd ${file})
  string(REGEX MATCHALL "[^\n]+ => [^\n]*" lines "${output}")
  foreach(line IN LISTS lines)
    string(REGEX MATCH "^[ \t]*([^ ]+) => (not found|[^ ]+)" matched "${line}")
    set(name ${CMAKE_MATCH_1})
    set(from ${CMAKE_MATCH_2})
    string(FIND "${from}" "${home}/" own)
    set(allowed FALSE)
    foreach(pattern IN LISTS bundle_exclusions)
      if(name MATCHES "${pattern}")
        set(allowed TRUE)
      endif()
    endforeach()
    # What Open MPI and NVIDIA's libraries need is theirs.
    if(NOT own EQUAL 0 AND NOT allowed AND NOT file MATCHES "/(mpi|nccl|cuda)\\.so$")
      message(FATAL_ERROR "${file} takes ${name} from ${from}")
    endif()
  endforeach()
endforeach()

run(${CMAKE_COMMAND} -E env --unset=FTRAIN_PLUGIN_PATH ${home}/bin/ftrain run
    ${home}/share/ftrain/bench/job.toml --set device.plugin=cpu --set device.autotune=false --set
    backbone.plugin=mobilefacenet --set dataset.batch=2 --set run.steps=2 --set run.folder=${WORK}/run)
if(NOT EXISTS ${WORK}/run/summary.json)
  message(FATAL_ERROR "the run left no summary\n${output}")
endif()
