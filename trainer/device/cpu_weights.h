// Weights of convolutions between plain float32 HWIO, as parameters and their gradients lie, and
// the blocks of 16 by 16 channels that oneDNN's kernels read and write. oneDNN's own reorders reach
// a quarter of the memory's speed here; these are for the usual layouts, the reorders for the rest.
#ifndef TRAINER_DEVICE_CPU_WEIGHTS_H
#define TRAINER_DEVICE_CPU_WEIGHTS_H

#include "trainer/device/cpu.h"

// Of one block of 16 output by 16 input channels of one tap.
enum cpu_weights_order {
    WEIGHTS_OTHER,          // none of these
    WEIGHTS_IN_OUT,         // float32 [16 in][16 out]
    WEIGHTS_OUT_IN,         // float32 [16 out][16 in]
    WEIGHTS_HALF_IN_PAIRS,  // bfloat16 [8 in][16 out][2 in]
    WEIGHTS_HALF_OUT_PAIRS, // bfloat16 [8 out][16 in][2 out]
};

struct cpu_weights_layout {
    enum cpu_weights_order order;
    bool in_first; // blocks lie as [in/16][out/16][tap], else as [out/16][in/16][tap]
};

// What `memory`, weights of the convolution `desc`, is.
struct cpu_weights_layout cpu_weights_layout_of(cpu_memory_desc memory, const struct op_desc *desc);

// To and from such blocks; channels are multiples of 16, order is not WEIGHTS_OTHER. Only
// WEIGHTS_IN_OUT comes back: that is what gradients are written in.
void cpu_weights_pack(const struct cpu_device *device, const struct op_desc *desc,
                      struct cpu_weights_layout layout, void *to, const float *weights);
void cpu_weights_unpack(const struct cpu_device *device, const struct op_desc *desc,
                        struct cpu_weights_layout layout, float *weights, const void *from);

#endif
