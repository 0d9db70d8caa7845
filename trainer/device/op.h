// What the devices share: the common head of every op, the check of a description, and host memory.
// Private to trainer/device.
#ifndef TRAINER_DEVICE_OP_H
#define TRAINER_DEVICE_OP_H

#include "trainer/device/device.h"

// Every device's op begins with this.
struct op {
    struct op_desc desc;
    size_t saved_bytes, scratch_bytes;
};

extern const struct device_ops ref_device_ops;
#if HAVE_DNNL
extern const struct device_ops cpu_device_ops;
#endif

// STATUS_INVALID with the reason when the description contradicts itself or is too large.
enum status op_desc_check(const struct op_desc *desc, struct error *error);

// Number of values of a tensor without any padding.
size_t tensor_count(struct tensor_shape shape);

// Weights that lead to one output of a CONV or LINEAR: the rows of its matrix of weights.
size_t op_fan_in(const struct op_desc *desc);

size_t op_saved_size(const struct op *op);
size_t op_scratch_size(const struct op *op);

// Mean and standard deviation by which OP_INPUT normalises, per channel.
extern const float op_input_mean[3], op_input_deviation[3];

#endif
