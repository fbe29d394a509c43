#include "core/plugin/plugin.h"

#include "plugins/devices/cpu/device.h"

FTRAIN_PLUGIN(cpu, registry) {
  registry.add<ftrain::Device, ftrain::cpu::CpuDevice>(
      "cpu", "x86-64 and ARM processors: oneDNN and Highway");
}
