#include "ftrain/plugin.h"

#include "plugins/devices/cpu/device/device.h"

FTRAIN_PLUGIN(cpu, registry) {
  registry.add<ftrain::Device, ftrain::cpu::CpuDevice>(
      "cpu", "x86-64 and ARM processors: oneDNN and Highway");
}
