// The device's memory: of the host, but closed to it while no operation runs.
#pragma once

#include <cstddef>

namespace standin {

// Counted. While open, operations (and, unavoidably, everybody else) reach the device's memory.
void open_memory();
void close_memory();

enum class Place { device, pinned, pageable };
// Where [address, address + bytes) lies as a whole.
Place place_of(const void* address, std::size_t bytes);
// Whether it lies across the end of an allocation of the device.
bool leaves_allocation(const void* address, std::size_t bytes);

}  // namespace standin
