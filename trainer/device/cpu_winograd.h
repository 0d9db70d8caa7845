// 3x3 convolutions of stride 1 by Winograd's minimal filtering (Lavin and Gray 2015,
// arXiv 1509.09308): tiles of the image and the weights are transformed, multiplied with each other
// place by place, as one matrix product over the channels for each place, and transformed back.
//
//   bfloat16: F(2x2, 3x3), 4x4 tiles, 2.25 times fewer products. Transforms in float32, transformed
//             tiles and weights rounded to bfloat16, sums in float32. Relative L2 error 4e-3 to
//             5e-3; a direct convolution, exact until its result is rounded, has 1.7e-3.
//   float32:  F(4x4, 3x3), 6x6 tiles, 4 times fewer products; errors of 0.5e-6 to 1.7e-6.
//
// Images are in the device's layout with blocks of 16 channels. All passes: `scratch` has
// cpu_winograd_scratch_bytes, 64-byte aligned; nothing is allocated; the device's threads share the
// work, and the bits do not depend on how many they are.
#ifndef TRAINER_DEVICE_CPU_WINOGRAD_H
#define TRAINER_DEVICE_CPU_WINOGRAD_H

#include "trainer/device/cpu.h"

enum cpu_winograd_pass { WINOGRAD_FORWARD, WINOGRAD_BACKWARD_DATA, WINOGRAD_BACKWARD_WEIGHTS };

// Whether this machine and precision can take the convolution: kernel 3, stride 1, padding 1 on all
// sides, whole blocks of channels.
bool cpu_winograd_fits(const struct cpu_device *device, const struct op_desc *desc,
                       enum cpu_winograd_pass pass);

// Whether it fits and gains: false where the library's kernels are measured faster.
bool cpu_winograd_pays(const struct cpu_device *device, const struct op_desc *desc,
                       enum cpu_winograd_pass pass);

// What follows is only for convolutions that fit.
size_t cpu_winograd_scratch_bytes(const struct cpu_device *device, const struct op_desc *desc,
                                  enum cpu_winograd_pass pass);

// Transformed weights for FORWARD or BACKWARD_DATA, from plain float32 HWIO.
size_t cpu_winograd_weights_bytes(const struct cpu_device *device, const struct op_desc *desc);
void cpu_winograd_weights(const struct cpu_device *device, const struct op_desc *desc,
                          enum cpu_winograd_pass pass, void *to, const float *weights);

// y from x, or dx from dy, with the weights transformed for that pass.
void cpu_winograd_forward(const struct cpu_device *device, const struct op_desc *desc, void *y,
                          const void *x, const void *weights, void *scratch);
void cpu_winograd_backward_data(const struct cpu_device *device, const struct op_desc *desc,
                                void *dx, const void *dy, const void *weights, void *scratch);

// The gradient of the weights, plain float32 HWIO, overwritten.
void cpu_winograd_backward_weights(const struct cpu_device *device, const struct op_desc *desc,
                                   float *gradient, const void *x, const void *dy, void *scratch);

#endif
