// One op on one device: its description, what goes in and what comes out on the host, and the
// device's buffers around it.
#ifndef TESTS_SUPPORT_DEVICE_CASE_H
#define TESTS_SUPPORT_DEVICE_CASE_H

#include "trainer/device/device.h"

// Bounds are ||a - b|| / ||b|| against the reference device, and for the reference device itself
// the share of the largest gradient by which a central difference may miss.
struct device_case {
    const char *name;
    enum op_kind kind;
    enum tensor_kind tensors;
    uint32_t n, h, w, c, out_c, groups;
    uint32_t kernel, stride, pads[4]; // top, left, bottom, right; kernel: the channel groups of
                                      // GROUP_NORM
    bool relu, bias; // relu: standardised weights of CONV, LINEAR; bias: the join of
                     // BATCH_NORM
    double forward, backward, difference;
};

struct op_desc device_case_desc(const struct device_case *row);
bool device_case_adds(const struct op_desc *desc); // the op has an x2

// Never of size 0; the caller frees.
float *device_case_values(size_t count);

// The host side of a case: what goes in, what comes out.
struct host {
    struct op_desc desc;
    size_t in, out, params, states;
    float *x, *x2, *weights, *dy;            // given
    float *y, *dx, *dx2, *gradients, *state; // results
};

struct host host_make(const struct device_case *row); // the same values for the same row
void host_free(struct host *host);

// Runs the case forward and backward and brings the results into `host`.
void host_run(struct device *device, struct host *host);

// The same in pieces. Buffers start as NaN, so that whoever reads before writing shows it.
struct rig {
    struct device *device;
    struct op *op;
    struct op_buffers buffers;
};

struct rig rig_make(struct device *device, const struct host *host);
void rig_free(struct rig *rig);
void rig_forward(struct rig *rig, enum op_mode mode);
void rig_backward(struct rig *rig);

// Brings a tensor to the host, and proves that the channels which only fill up a block are zero.
void rig_fetch(struct device *device, struct tensor_shape shape, float *values, void *memory);

struct device *rig_open_device(const struct device_ops *ops, int threads);

// Number `index` of all devices in all precisions that this machine has; NULL past the last.
struct device *rig_open_any(size_t index, int threads);

#endif
