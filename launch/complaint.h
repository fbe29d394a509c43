// An error as the user reads it, and the code that a process ends with because of it.
#pragma once

#include <exception>
#include <string>

namespace ftrain::launch {

struct Complaint {
  std::string kind;  // "ConfigError", ...
  std::string message;
  int code = 1;
};

Complaint complaint_of(const std::exception_ptr& error);

// "error: KIND: MESSAGE" as one write to standard error, behind what went to standard output.
// `who`: the rank that failed, where there are several; may be empty.
void print_error(const Complaint& complaint, const std::string& who = {});

}  // namespace ftrain::launch
