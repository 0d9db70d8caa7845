// The cuda device: kernels of our own (norm.h, layers.h, …), NVIDIA's libraries for convolutions
// and products (library.h), and what strings them together as trainer/device/device.h asks.
// Everything in trainer/cuda belongs to the plugin libbyol_cuda.so and to nothing else.
//
// Work is queued on one stream, uploads on another; neither waits for the host. What fails after
// the fact shows at the next wait, as STATUS_DEVICE; device->base.failure has the words.
#ifndef TRAINER_CUDA_CUDA_H
#define TRAINER_CUDA_CUDA_H

#include "trainer/cuda/image.h"
#include "trainer/cuda/library.h"
#include "trainer/device/op.h"

// The plugin's one symbol.
__attribute__((visibility("default"))) const struct device_ops *byol_cuda_device(void);

struct cuda_span_list;
struct cuda_group;
struct cuda_choices;

struct cuda_device {
    struct device base;
    int gpu;
    bool half;            // images are bfloat16
    cudaStream_t stream;  // everything but uploads
    cudaStream_t uploads; // copies of batches
    struct cuda_library *library;
    struct cuda_span_list *spans; // lists that optimisers have seen
    struct cuda_group *group;     // what joins device->base.peers; NULL before their first sum
    struct cuda_choices *choices; // plans of convolutions; NULL: none yet
    bool recording;
    char name[160];    // the hardware and the library
    char failure[192]; // what base.failure points to
};

struct cuda_op {
    struct op base;
    enum status (*forward)(struct cuda_device *device, struct cuda_op *op,
                           const struct op_buffers *buffers, enum op_mode mode);
    enum status (*backward)(struct cuda_device *device, struct cuda_op *op,
                            const struct op_buffers *buffers); // NULL: there is none
    void (*release)(struct cuda_op *op);                       // NULL: nothing but the memory
};

// --- failures (failure.c)

// STATUS_OK, or STATUS_DEVICE with the code's name and `what` kept as the device's failure.
enum status cuda_check(struct cuda_device *device, cudaError_t code, const char *what);
// The same in words of another library.
enum status cuda_fail(struct cuda_device *device, const char *what, const char *reason);
// For functions that have an error to fill.
enum status cuda_explain(const struct cuda_device *device, enum status status, struct error *error);

// --- choosing and opening a GPU (open.c)

enum status cuda_open(struct device **out, int threads, enum device_precision precision,
                      struct error *error);
void cuda_close(struct device *device);
void cuda_describe(const struct device *device, char *text, size_t capacity);

// Makes the device's GPU the one that this thread talks to: first thing in every call.
enum status cuda_enter(struct cuda_device *device);

// --- memory (memory.c)

enum status cuda_allocate(struct device *device, void **memory, size_t bytes, struct error *error);
void cuda_release(struct device *device, void *memory);
enum status cuda_copy_in(struct device *device, void *to, const void *host, size_t bytes);
enum status cuda_copy_out(struct device *device, void *host, const void *from, size_t bytes);
enum status cuda_copy(struct device *device, void *to, const void *from, size_t bytes);
enum status cuda_fill_zero(struct device *device, void *memory, size_t bytes);
enum status cuda_synchronise(struct device *device);
enum status cuda_host_allocate(struct device *device, void **memory, size_t bytes,
                               struct error *error);
void cuda_host_release(struct device *device, void *memory);
enum status cuda_copy_out_later(struct device *device, void *host, const void *from, size_t bytes);
enum status cuda_copy_in_later(struct device *device, void *to, const void *host, size_t bytes);

// Images (image.h), by way of plain float32 in memory of the moment.
size_t cuda_tensor_bytes(const struct device *device, struct tensor_shape shape);
enum status cuda_tensor_store(struct device *device, struct tensor_shape shape, void *to,
                              const float *host);
enum status cuda_tensor_fetch(struct device *device, struct tensor_shape shape, float *host,
                              const void *from);
enum status cuda_tensor_add(struct device *device, struct tensor_shape shape, void *to,
                            const void *from);

// --- marks, uploads, recordings (queue.c)

enum status cuda_mark_open(struct device *device, struct device_mark **out, struct error *error);
void cuda_mark_close(struct device *device, struct device_mark *mark);
enum status cuda_mark_set(struct device *device, struct device_mark *mark);
enum status cuda_mark_wait(struct device *device, struct device_mark *mark);
enum status cuda_upload_open(struct device *device, struct device_upload **out, size_t bytes,
                             struct error *error);
void cuda_upload_close(struct device *device, struct device_upload *upload);
enum status cuda_upload_send(struct device *device, struct device_upload *upload, size_t offset,
                             const void *host, size_t bytes);
enum status cuda_upload_wait(struct device *device, struct device_upload *upload);
enum status cuda_upload_take(struct device *device, struct device_upload *upload,
                             const void **memory);
enum status cuda_upload_done(struct device *device, struct device_upload *upload);
enum status cuda_record_begin(struct device *device, struct error *error);
enum status cuda_record_end(struct device *device, struct device_recording **out,
                            struct error *error);
enum status cuda_record_run(struct device *device, struct device_recording *recording);
void cuda_record_close(struct device *device, struct device_recording *recording);

// --- ops (ops.c dispatches; ops_conv.c, ops_norm.c, ops_layers.c)

enum status cuda_op_create(struct device *device, const struct op_desc *desc, struct op **out,
                           struct error *error);
void cuda_op_release(struct device *device, struct op *op);
enum status cuda_op_forward(struct device *device, struct op *op, const struct op_buffers *buffers,
                            enum op_mode mode);
enum status cuda_op_backward(struct device *device, struct op *op,
                             const struct op_buffers *buffers);

// Each creates the op of one kind; `desc` is checked. On failure *out is NULL or half built: the
// caller releases it.
enum status cuda_conv_create(struct cuda_device *device, const struct op_desc *desc,
                             struct cuda_op **out, struct error *error);
enum status cuda_batch_norm_create(struct cuda_device *device, const struct op_desc *desc,
                                   struct cuda_op **out, struct error *error);
enum status cuda_image_norm_create(struct cuda_device *device, const struct op_desc *desc,
                                   struct cuda_op **out, struct error *error);
enum status cuda_linear_create(struct cuda_device *device, const struct op_desc *desc,
                               struct cuda_op **out, struct error *error);
enum status cuda_layer_create(struct cuda_device *device, const struct op_desc *desc,
                              struct cuda_op **out, struct error *error);

// A zeroed struct of `bytes` that begins with struct cuda_op, with `desc` filled in. NULL (and the
// error filled) when there is no memory.
void *cuda_op_allocate(size_t bytes, const struct op_desc *desc, struct error *error);

// Whether a forward pass leaves something for backward.
bool cuda_op_saves(const struct cuda_op *op, enum op_mode mode);

// Values of a tensor as stored, and whether they are bfloat16.
uint64_t cuda_stored_values(const struct cuda_device *device, struct tensor_shape shape);
bool cuda_stored_half(const struct cuda_device *device, struct tensor_shape shape);

// Lays pieces of one buffer side by side: the offset of the next one, which makes *total grow.
size_t cuda_piece(size_t *total, size_t bytes);
static inline void *cuda_at(void *memory, size_t offset)
{
    return (char *)memory + offset;
}

// --- views (ops_views.c)

size_t cuda_device_render_views_scratch(const struct device *device, uint32_t images,
                                        uint32_t size);
enum status cuda_device_render_views(struct device *device, uint32_t images, uint32_t size,
                                     const uint8_t *bytes, const struct view_record *records,
                                     float *out, void *scratch);

// --- losses and optimisers (learn.c)

enum status cuda_device_regression_loss(struct device *device, const float *x, const float *y,
                                        uint32_t n, uint32_t d, float scale, float *losses,
                                        float *dx, float *dy);
enum status cuda_device_softmax_loss(struct device *device, const float *logits,
                                     const int32_t *labels, uint32_t n, uint32_t classes,
                                     const float *scale, float *losses, float *dlogits,
                                     uint8_t *top1, uint8_t *top5);
enum status cuda_device_lars_step(struct device *device, const struct param_span *spans,
                                  size_t count, const struct lars_settings *settings, float *params,
                                  const float *grads, float *momentum,
                                  const struct moving_target *target);
enum status cuda_device_sgd_step(struct device *device, const struct param_span *spans,
                                 size_t count, const struct sgd_settings *settings, float *params,
                                 const float *grads, float *momentum,
                                 const struct moving_target *target);
enum status cuda_device_adamw_step(struct device *device, const struct param_span *spans,
                                   size_t count, const struct adamw_settings *settings,
                                   float *params, const float *grads, float *momentum,
                                   float *second_moment, float *steps,
                                   const struct moving_target *target);
enum status cuda_device_moving_average(struct device *device, float *target, const float *online,
                                       uint64_t count, float rate);
enum status cuda_device_block_add(struct device *device, float *sum, const float *block,
                                  uint64_t count);
enum status cuda_device_matrix_product(struct device *device, bool transpose_a, bool transpose_b,
                                       uint32_t m, uint32_t n, uint32_t k, const float *a,
                                       const float *b, float *c, bool accumulate);
void cuda_span_lists_close(struct cuda_device *device);

// --- plans of convolutions (choices.c)

// The plan that this device has for such a convolution already, or was told; else the fastest.
enum status cuda_choose_plan(struct cuda_device *device, const struct cuda_conv *conv,
                             enum cuda_conv_pass pass, struct cuda_conv_plan **out,
                             struct error *error);
enum status cuda_tell_choices(const struct device *device, char **text, struct error *error);
enum status cuda_take_choices(struct device *device, const char *text, bool *taken,
                              struct error *error);
void cuda_choices_close(struct cuda_device *device);

// --- peers (peers.c)

// Sums over device->base.peers, queued like an op; one device alone: nothing to do. Values in
// device memory.
enum status cuda_peers_sum(struct cuda_device *device, double *values, size_t count);
enum status cuda_block_sum_peers(struct device *device, float *block, uint64_t count);
unsigned cuda_peers_count(const struct cuda_device *device); // 1 alone
// Why sums over peers cannot be recorded; NULL: they can.
const char *cuda_peers_obstacle(const struct cuda_device *device);
void cuda_peers_leave(struct cuda_device *device);

#endif
