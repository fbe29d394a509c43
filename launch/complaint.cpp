#include "launch/complaint.h"

#include <filesystem>
#include <iostream>
#include <new>

#include "ftrain/base/error.h"

namespace ftrain::launch {

Complaint complaint_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& known) {
    return {std::string(known.kind()), known.what(), static_cast<int>(known.exit_code())};
  } catch (const std::filesystem::filesystem_error& failure) {
    return {"DataError", failure.what(), static_cast<int>(ExitCode::data)};
  } catch (const std::bad_alloc&) {
    return {"DeviceError",
            "out of memory; lower [dataset] batch or prefetch, `ftrain plan` says what a job needs",
            static_cast<int>(ExitCode::device)};
  } catch (const std::exception& other) {
    return {"internal error", other.what(), 1};
  } catch (...) {
    return {"internal error", "something was thrown that is no exception", 1};
  }
}

void print_error(const Complaint& complaint, const std::string& who) {
  std::cout.flush();
  const std::string rank = who.empty() ? "" : who + ": ";
  std::cerr << "error: " + rank + complaint.kind + ": " + complaint.message + "\n" << std::flush;
}

}  // namespace ftrain::launch
