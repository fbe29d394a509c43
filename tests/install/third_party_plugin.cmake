# Installs BUILD to a prefix below WORK, builds examples/tiny_backbone against it as a project of its
# own, and has the installed program list the plugin and plan a job that names it.
set(prefix ${WORK}/prefix)
set(example ${WORK}/example)
set(program ${prefix}/${BINDIR}/ftrain)
file(REMOVE_RECURSE ${WORK})

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT code EQUAL 0)
    string(JOIN " " command ${ARGV})
    message(FATAL_ERROR "failed (${code}): ${command}\n${text}")
  endif()
  set(output "${text}" PARENT_SCOPE)
endfunction()

function(expect word)
  if(NOT output MATCHES "${word}")
    message(FATAL_ERROR "'${word}' is missing in:\n${output}")
  endif()
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
run(${CMAKE_COMMAND} -G ${GENERATOR} -S ${SOURCE}/examples/tiny_backbone -B ${example}
    -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_PREFIX_PATH=${prefix} -D CMAKE_BUILD_TYPE=Release)
run(${CMAKE_COMMAND} --build ${example})

set(ENV{FTRAIN_PLUGIN_PATH} ${example})
run(${program} plugins tiny)
expect("width")
run(${program} plugins)
expect("mobilefacenet") # the installed ones are found beside it
expect("tiny")
run(${program} plan ${SOURCE}/examples/tiny_backbone/job.toml)
message(STATUS "the installed program planned a job with the third party's plugin")
