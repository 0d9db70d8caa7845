// The cpu device: oneDNN for convolution and matrix products, loops of our own for the rest, OpenMP
// threads. Private to trainer/device.
//
// IMAGE tensors are blocked by 16 (AVX-512) or 8 channels, the last block filled up with zeros;
// images of fewer than 4 channels are planar, which is what the first convolution's kernels read.
// Whatever writes an image keeps the padding channels zero. Values of images are float32, or
// bfloat16 when the device's precision is that (`half`, cpu_lanes.h).
#ifndef TRAINER_DEVICE_CPU_H
#define TRAINER_DEVICE_CPU_H

#include "trainer/device/cpu_lanes.h"
#include "trainer/device/op.h"

#include <oneapi/dnnl/dnnl.h>

// A function compiled once per vector width, chosen when the program starts. Loops inside it are
// vectorised; work is split into threads outside of it.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define CPU_KERNEL __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CPU_KERNEL
#endif

struct cpu_update;

struct cpu_device {
    struct device base;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int threads;
    bool half;                 // images are bfloat16
    struct cpu_update *update; // what the optimisers keep; NULL before their first step
};

// How the values of an image lie in memory.
struct cpu_layout {
    uint32_t block;  // channels side by side; 1 = planar
    uint32_t blocks; // of channels, the last one filled up
    size_t pixels;   // h w
    size_t values;   // in all, with padding
};
struct cpu_layout cpu_layout_of(struct tensor_shape shape);

struct cpu_op {
    struct op base;
    enum status (*forward)(struct cpu_device *device, struct cpu_op *op,
                           const struct op_buffers *buffers, enum op_mode mode);
    enum status (*backward)(struct cpu_device *device, struct cpu_op *op,
                            const struct op_buffers *buffers); // NULL: there is none
    void (*release)(struct cpu_op *op);                        // NULL: nothing but the memory
};

// Each creates the op of one kind; `desc` is checked. On failure *out is NULL or half built: the
// caller releases it.
enum status cpu_conv_create(struct cpu_device *device, const struct op_desc *desc,
                            struct cpu_op **out, struct error *error);
enum status cpu_norm_create(struct cpu_device *device, const struct op_desc *desc,
                            struct cpu_op **out, struct error *error);
enum status cpu_norm_matrix_create(struct cpu_device *device, const struct op_desc *desc,
                                   struct cpu_op **out, struct error *error);
enum status cpu_image_norm_create(struct cpu_device *device, const struct op_desc *desc,
                                  struct cpu_op **out, struct error *error);
enum status cpu_max_pool_create(struct cpu_device *device, const struct op_desc *desc,
                                struct cpu_op **out, struct error *error);
enum status cpu_layer_create(struct cpu_device *device, const struct op_desc *desc,
                             struct cpu_op **out, struct error *error);

// By kind, whatever `standardise` says; and the wrapper that standardises the weights of such an
// op.
enum status cpu_plain_create(struct cpu_device *device, const struct op_desc *desc,
                             struct cpu_op **out, struct error *error);
enum status cpu_standard_create(struct cpu_device *device, const struct op_desc *desc,
                                struct cpu_op **out, struct error *error);

void cpu_op_release(struct device *device, struct op *op); // accepts NULL

// Before any work: exactly the device's number of threads. oneDNN's kernels wait for each other, so
// fewer than were planned would wait for ever.
void cpu_enter(const struct cpu_device *device);

// A zeroed struct of `bytes` that begins with struct cpu_op, with `desc` filled in. NULL (and the
// error filled) when there is no memory.
void *cpu_op_allocate(size_t bytes, const struct op_desc *desc, struct error *error);

// --- oneDNN (cpu_dnnl.c) -------------------------------------------------------------------------

// All calls of oneDNN, version 2 or 3, are in that file.

// A description of memory that belongs to what was asked for it.
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t cpu_memory_desc;
#else
typedef const dnnl_memory_desc_t *cpu_memory_desc;
#endif

// The device's engine and stream. Closing accepts what was not opened.
enum status cpu_dnnl_open(struct cpu_device *device, struct error *error);
void cpu_dnnl_close(struct cpu_device *device);

bool cpu_dnnl_has_half(void); // vectors of bfloat16 are multiplied by hardware
void cpu_dnnl_describe(char *text, size_t capacity); // "oneDNN 2.6.3, avx512_core"

#define CPU_MAX_ARGUMENTS 12

// A oneDNN primitive with the memory objects of its arguments; the last one is its scratchpad.
struct cpu_primitive {
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t arguments[CPU_MAX_ARGUMENTS];
    int count;
    size_t scratch_bytes;
};

enum cpu_conv_pass { CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHTS, CONV_PASSES };

// Describes one pass of a convolution: images as they lie on the device, weights as its kernel
// wants them. `winograd`: by Winograd's algorithm if the library has it for this one. `hint`: the
// description of the forward pass, NULL for that one. The scratchpad is the caller's.
enum status cpu_conv_describe(struct cpu_device *device, dnnl_primitive_desc_t *out,
                              const struct op_desc *desc, enum cpu_conv_pass pass, bool winograd,
                              dnnl_primitive_desc_t hint, struct error *error);
void cpu_description_release(dnnl_primitive_desc_t desc); // accepts NULL

// Makes the primitive and a memory object for each argument (DNNL_ARG_…), in the order in which
// cpu_run expects their pointers.
enum status cpu_primitive_create(struct cpu_device *device, struct cpu_primitive *out,
                                 dnnl_primitive_desc_t desc, const int *arguments, int count,
                                 struct error *error);

// From plain float32 HWIO to the weights of the described pass; for CONV_BACKWARD_WEIGHTS from its
// gradient to plain.
enum status cpu_reorder_create(struct cpu_device *device, struct cpu_primitive *out,
                               const struct op_desc *desc, enum cpu_conv_pass pass,
                               dnnl_primitive_desc_t described, struct error *error);
void cpu_primitive_release(struct cpu_primitive *primitive); // accepts zeroed ones
enum status cpu_run(struct cpu_device *device, struct cpu_primitive *primitive,
                    const void *const *pointers, void *scratch);

// The memory of an argument, and its size rounded up to a cache line.
cpu_memory_desc cpu_argument_desc(dnnl_primitive_desc_t desc, int argument);
size_t cpu_argument_bytes(dnnl_primitive_desc_t desc, int argument);

// Whether `memory` is weights of the convolution `desc` in the layout `tag`.
bool cpu_is_weights(cpu_memory_desc memory, const struct op_desc *desc, dnnl_data_type_t type,
                    dnnl_format_tag_t tag);

// Bytes rounded up to a cache line, so that parts of one buffer stay aligned.
size_t cpu_aligned(size_t bytes);

// Row-major product through dnnl_sgemm.
enum status cpu_matrix_product(struct device *device, bool transpose_a, bool transpose_b,
                               uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
                               float *c, bool accumulate);

// --- shared loops --------------------------------------------------------------------------------

// One step of the running statistics of one batch normalisation: `mean` and `variance` [c] of one
// group.
void cpu_running_update(float *state, const float *mean, const float *variance, uint32_t channels);

// to += from, tensors of `shape`
void cpu_image_add(struct cpu_device *device, void *to, const void *from,
                   struct tensor_shape shape);

// to[i] += from[i]
void cpu_accumulate(struct cpu_device *device, float *to, const float *from, size_t count);

// --- losses and optimisers (cpu_loss.c, cpu_optim.c) ---------------------------------------------

void cpu_update_release(struct cpu_update *update); // accepts NULL

enum status cpu_regression_loss(struct device *device, const float *x, const float *y, uint32_t n,
                                uint32_t d, float scale, float *losses, float *dx, float *dy);
enum status cpu_softmax_loss(struct device *device, const float *logits, const int32_t *labels,
                             uint32_t n, uint32_t classes, const float *scale, float *losses,
                             float *dlogits, uint8_t *top1, uint8_t *top5);
enum status cpu_lars_step(struct device *device, const struct param_span *spans, size_t count,
                          const struct lars_settings *settings, float *params, const float *grads,
                          float *momentum, const struct moving_target *target);
enum status cpu_sgd_step(struct device *device, const struct param_span *spans, size_t count,
                         const struct sgd_settings *settings, float *params, const float *grads,
                         float *momentum, const struct moving_target *target);
enum status cpu_adamw_step(struct device *device, const struct param_span *spans, size_t count,
                           const struct adamw_settings *settings, float *params, const float *grads,
                           float *momentum, float *second_moment, float *steps,
                           const struct moving_target *target);
enum status cpu_moving_average(struct device *device, float *target, const float *online,
                               uint64_t count, float rate);
enum status cpu_block_add(struct device *device, float *sum, const float *block, uint64_t count);

#endif
