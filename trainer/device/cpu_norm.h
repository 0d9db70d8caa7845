// The loops of batch normalisation over the values of images. Private to the cpu device.
//
// A span is the planes that one block of channels has in some images of one group. Every block
// width (16, 8 or 1 channels) divides CPU_LANES, so a plane is walked CPU_LANES values at a time
// whatever it holds, with the channels' numbers repeated to fill the lanes.
#ifndef TRAINER_DEVICE_CPU_NORM_H
#define TRAINER_DEVICE_CPU_NORM_H

#include "trainer/device/cpu.h"

struct norm_lanes {
    cpu_lanes mean, inverse, factor, offset; // inverse: 1 / deviation; factor: scale / deviation
    cpu_lanes mean_gradient, mean_product;   // backward's second pass only
};

struct norm_span {
    size_t first, stride; // values before the first plane, and from one image's plane to the next's
    size_t values;        // of a plane
    size_t images;
    bool half, relu, join;
    const struct norm_lanes *lanes;
};

// Of one plane: values and their squares, or gradients and their products with what is normalised.
struct norm_sums {
    double first[CPU_LANES], second[CPU_LANES];
};

// Where a span's values come from and go to; all are the beginnings of whole tensors.
struct norm_tensors {
    const void *x, *x2, *dy;
    void *y, *dx, *dx2; // backward: y is read, dx and dx2 may be NULL
};

// `sums` [images]: sums of x and of its squares.
void cpu_norm_measure(struct norm_sums *sums, const struct norm_tensors *tensors,
                      const struct norm_span *span);

// The sum of `images` of them, in their order.
void cpu_norm_total(struct norm_sums *total, const struct norm_sums *sums, size_t images);

// y from x and x2.
void cpu_norm_apply(const struct norm_tensors *tensors, const struct norm_span *span);

// `sums` [images]: sums of the gradients behind the ReLU, and of their products. With `join` those
// gradients are left in dx2.
void cpu_norm_collect(struct norm_sums *sums, const struct norm_tensors *tensors,
                      const struct norm_span *span);

// dx; after cpu_norm_collect.
void cpu_norm_differentiate(const struct norm_tensors *tensors, const struct norm_span *span);

#endif
