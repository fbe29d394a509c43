// Chooses among kernels by measuring them, once for each distinct problem on a machine.
//
// A problem is an op with its attributes, the types and layouts of its operands, the threads, the
// instructions and the process's options; the file of answers is keyed by the processor's model and
// the versions of oneDNN and ftrain. Ranks of one process share the answers, so they choose alike.
// Threads: safe; one measures at a time. Failure: a file that cannot be read or written is only
// worth a warning; a candidate that throws loses.
#pragma once

#include <string>

#include "core/runtime/kernel.h"

namespace ftrain::cpu {

// Is the op one whose kernels are worth measuring?
bool is_tuned(const Node& node);

// As KernelList::choose, but where several candidates are worth it the fastest.
KernelChoice choose_by_measurement(const KernelList& kernels, const Node& node,
                                   const KernelEnvironment& environment);

}  // namespace ftrain::cpu
