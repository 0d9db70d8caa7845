#include "trainer/device/cpu_weights.h"

#define SIDE  16
#define BLOCK ((size_t)SIDE * SIDE)

struct cpu_weights_layout cpu_weights_layout_of(cpu_memory_desc memory, const struct op_desc *desc)
{
    static const struct {
        dnnl_data_type_t type;
        dnnl_format_tag_t tag;
        struct cpu_weights_layout layout;
    } known[] = {
        {dnnl_f32, dnnl_OIhw16i16o, {WEIGHTS_IN_OUT, false}},
        {dnnl_f32, dnnl_OIhw16o16i, {WEIGHTS_OUT_IN, false}},
        {dnnl_f32, dnnl_IOhw16o16i, {WEIGHTS_OUT_IN, true}},
        {dnnl_bf16, dnnl_OIhw8i16o2i, {WEIGHTS_HALF_IN_PAIRS, false}},
        {dnnl_bf16, dnnl_OIhw8o16i2o, {WEIGHTS_HALF_OUT_PAIRS, false}},
        {dnnl_bf16, dnnl_IOhw8o16i2o, {WEIGHTS_HALF_OUT_PAIRS, true}},
    };
    if (desc->in.c % SIDE == 0 && desc->out.c % SIDE == 0) {
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            if (cpu_is_weights(memory, desc, known[i].type, known[i].tag)) {
                return known[i].layout;
            }
        }
    }
    return (struct cpu_weights_layout){WEIGHTS_OTHER, false};
}

// --- one block: 16 rows of inputs, `stride` apart, of 16 outputs each ----------------------------

CPU_KERNEL static void copy_block(float *to, size_t to_stride, const float *from,
                                  size_t from_stride)
{
    for (size_t in = 0; in < SIDE; in++) {
#pragma omp simd
        for (size_t out = 0; out < SIDE; out++) {
            to[in * to_stride + out] = from[in * from_stride + out];
        }
    }
}

CPU_KERNEL static void turn_block(float *to, const float *from, size_t stride)
{
    for (size_t out = 0; out < SIDE; out++) {
        for (size_t in = 0; in < SIDE; in++) {
            to[out * SIDE + in] = from[in * stride + out];
        }
    }
}

CPU_KERNEL static void pair_inputs(uint16_t *to, const float *from, size_t stride)
{
    for (size_t in = 0; in < SIDE; in += 2) {
        const float *first = from + in * stride, *second = first + stride;
#pragma omp simd
        for (size_t out = 0; out < SIDE; out++) {
            to[in * SIDE + 2 * out] = cpu_half_round(first[out]);
            to[in * SIDE + 2 * out + 1] = cpu_half_round(second[out]);
        }
    }
}

CPU_KERNEL static void pair_outputs(uint16_t *to, const float *from, size_t stride)
{
    uint16_t rounded[SIDE][SIDE];
    for (size_t in = 0; in < SIDE; in++) {
#pragma omp simd
        for (size_t out = 0; out < SIDE; out++) {
            rounded[in][out] = cpu_half_round(from[in * stride + out]);
        }
    }
    for (size_t out = 0; out < SIDE; out += 2) {
        for (size_t in = 0; in < SIDE; in++) {
            memcpy(to + out * SIDE + 2 * in, &rounded[in][out], 2 * sizeof *to);
        }
    }
}

static void pack_block(enum cpu_weights_order order, void *to, size_t block, const float *from,
                       size_t stride)
{
    float *whole = (float *)to + block * BLOCK;
    uint16_t *halves = (uint16_t *)to + block * BLOCK;
    switch (order) {
    case WEIGHTS_IN_OUT:
        copy_block(whole, SIDE, from, stride);
        break;
    case WEIGHTS_OUT_IN:
        turn_block(whole, from, stride);
        break;
    case WEIGHTS_HALF_IN_PAIRS:
        pair_inputs(halves, from, stride);
        break;
    case WEIGHTS_HALF_OUT_PAIRS:
        pair_outputs(halves, from, stride);
        break;
    case WEIGHTS_OTHER:
        break;
    }
}

// --- all of them ---------------------------------------------------------------------------------

// Runs of blocks that lie side by side in the plain weights: the outputs of 16 inputs of one tap.
struct run {
    size_t plain; // first value in the plain weights
    size_t block; // its block, and how far the next one is
    size_t step;
};

static struct run run_at(const struct op_desc *desc, struct cpu_weights_layout layout, size_t index)
{
    size_t ins = desc->in.c / SIDE, outs = desc->out.c / SIDE;
    size_t taps = (size_t)desc->kernel * desc->kernel, tap = index / ins, in = index % ins;
    return (struct run){
        .plain = (tap * desc->in.c + in * SIDE) * desc->out.c,
        .block = layout.in_first ? in * outs * taps + tap : in * taps + tap,
        .step = layout.in_first ? taps : ins * taps,
    };
}

static size_t run_count(const struct op_desc *desc)
{
    return (size_t)desc->kernel * desc->kernel * (desc->in.c / SIDE);
}

void cpu_weights_pack(const struct cpu_device *device, const struct op_desc *desc,
                      struct cpu_weights_layout layout, void *to, const float *weights)
{
#pragma omp parallel for num_threads(device->threads)
    for (size_t index = 0; index < run_count(desc); index++) {
        struct run run = run_at(desc, layout, index);
        for (size_t out = 0; out < desc->out.c / SIDE; out++) {
            pack_block(layout.order, to, run.block + out * run.step,
                       weights + run.plain + out * SIDE, desc->out.c);
        }
    }
}

void cpu_weights_unpack(const struct cpu_device *device, const struct op_desc *desc,
                        struct cpu_weights_layout layout, float *weights, const void *from)
{
#pragma omp parallel for num_threads(device->threads)
    for (size_t index = 0; index < run_count(desc); index++) {
        struct run run = run_at(desc, layout, index);
        for (size_t out = 0; out < desc->out.c / SIDE; out++) {
            copy_block(weights + run.plain + out * SIDE, desc->out.c,
                       (const float *)from + (run.block + out * run.step) * BLOCK, SIDE);
        }
    }
}
