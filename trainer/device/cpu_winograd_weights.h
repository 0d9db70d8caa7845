// The gradient of the weights by Winograd's filtering, as far as cpu_winograd.c needs to know;
// cpu_winograd_backward_weights itself is declared in cpu_winograd.h.
#ifndef TRAINER_DEVICE_CPU_WINOGRAD_WEIGHTS_H
#define TRAINER_DEVICE_CPU_WINOGRAD_WEIGHTS_H

#include "trainer/device/cpu.h"

// Whether there are instructions for it and the shape is right: kernel 3, stride 1, padding 1 on
// all sides, whole blocks of channels.
bool cpu_winograd_weights_fits(const struct cpu_device *device, const struct op_desc *desc);

// Whether it fits and is faster than the library's kernels.
bool cpu_winograd_weights_pays(const struct cpu_device *device, const struct op_desc *desc);

// Bytes of its scratch memory, where it fits.
size_t cpu_winograd_weights_scratch(const struct cpu_device *device, const struct op_desc *desc);

#endif
