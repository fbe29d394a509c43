// The margin and the update of the op table (case_payloads.h) as device code.
#pragma once

namespace ftrain::cuda {

// From now on the op table's payloads have device functions.
void put_payloads_on_device();

}  // namespace ftrain::cuda
