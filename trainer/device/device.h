// The device contract: a struct of functions that a network, an optimiser and a loss run on. `ref`
// (obvious loops, tests and oracle) and `cpu` (oneDNN) implement it; a GPU joins by implementing
// the same table. One table of test cases (tests/support/device_cases.c) runs every op on every
// device.
//
// Memory. A device hands out buffers; pointers into them are device memory: only device functions
// and the copies touch them. Two kinds of tensor:
//   TENSOR_IMAGE   activations [n][h][w][c] in a layout only the device knows; device->tensor_bytes
//   says how large; TENSOR_MATRIX  float32 [n][c], plain row-major (h = w = 1).
// Parameters, gradients, running statistics and optimiser state are plain float32 in the documented
// layouts (convolution HWIO, linear [in][out], vectors [c]) whatever the device does inside.
//
// Views. A batch holds `groups` views one after the other (images of view 1, then of view 2).
// Convolutions see them as one batch; batch normalisation treats each group by itself, in order.
//
// Threads: one device object, one thread at a time. `threads` bounds what its library uses inside.
// Errors: creation returns a status; execution of a created op can only fail with STATUS_DEVICE.
#ifndef TRAINER_DEVICE_DEVICE_H
#define TRAINER_DEVICE_DEVICE_H

#include "formats/status.h"

#include <stdbool.h>

enum tensor_kind { TENSOR_IMAGE, TENSOR_MATRIX };

// What a device computes images with. Matrices, parameters, their gradients, statistics and
// losses are float32 in every precision.
enum device_precision {
    DEVICE_AUTO, // bf16 where the hardware multiplies it, else f32; an open device has one of the
                 // others
    DEVICE_F32,
    DEVICE_BF16, // images, their gradients and the weights that convolutions read are rounded to
                 // bfloat16; sums are float32
};
#define DEVICE_PRECISION_CHOICES "auto|f32|bf16"

struct tensor_shape {
    enum tensor_kind kind;
    uint32_t n, h, w, c;
};

enum op_kind {
    OP_INPUT,      // float32 [n][h][w][3] in [0, 1] (plain) -> IMAGE: (x - mean) / std per channel,
                   // ImageNet's constants. No backward.
    OP_CONV,       // IMAGE -> IMAGE, no bias; weights HWIO [kernel][kernel][in][out]
    OP_BATCH_NORM, // IMAGE or MATRIX, same shape; parameters: scale [c] then offset [c]; optional
                   // fused sum with x2 (`join`), then ReLU
    OP_ADD,        // x + x2, IMAGE; optional fused ReLU
    OP_RELU,       // IMAGE or MATRIX
    OP_MAX_POOL,   // IMAGE -> IMAGE, window `kernel`, padded with -inf; the first maximum in row
                   // order gets the gradient
    OP_MEAN_POOL,  // IMAGE [n][h][w][c] -> MATRIX [n][c], mean over h, w
    OP_LINEAR,     // MATRIX [n][in] -> MATRIX [n][out]; weights [in][out]; with `bias`, parameters:
                   // weights then bias [out]
    OP_GROUP_NORM, // IMAGE or MATRIX, same shape; each image by itself: mean and variance over
                   // h, w and the channels of each of `channel_groups` equal runs of channels (1 =
                   // layer normalisation); parameters and ReLU as BATCH_NORM, no state
    OP_AFFINE, // IMAGE or MATRIX, same shape: scale x + offset; parameters and ReLU as BATCH_NORM
};

#define OP_KINDS 10
extern const char *const op_kind_names[OP_KINDS]; // "input", "conv", "batch_norm", …

// What an op is, before it exists. Output size follows from the paddings: out = (in + low + high -
// kernel) / stride + 1.
struct op_desc {
    enum op_kind kind;
    struct tensor_shape in, out;
    uint32_t groups; // views in the batch; n is a multiple of it
    uint32_t kernel, stride;
    uint32_t pad_top, pad_left, pad_bottom, pad_right;
    uint32_t channel_groups;  // GROUP_NORM: divides the channels
    bool relu;                // fused: BATCH_NORM, GROUP_NORM, AFFINE, ADD
    bool join;                // BATCH_NORM of IMAGE: x2 is added before the ReLU
    bool bias;                // LINEAR
    bool standardise;         // CONV, LINEAR: see WEIGHT_STANDARD_EPSILON
    bool need_backward;       // false: forward only, nothing is saved
    bool need_input_gradient; // false: backward computes parameter gradients only
};

// Running statistics of one BATCH_NORM, in the reference's form (zero-debiased moving averages,
// decay 0.9): counter += 1; hidden = 0.9 hidden + 0.1 value; average = hidden / (1 - 0.9^counter);
// variance is the biased one. Layout: counter [1], hidden mean [c], hidden variance [c], average
// mean [c], average variance [c].
#define BATCH_NORM_STATE(c) (1 + 4 * (size_t)(c))
#define BATCH_NORM_DECAY    0.9f
#define BATCH_NORM_EPSILON  1e-5f

// Standardised weights (CONV, LINEAR): what the op computes with is (w - mean) / sqrt(variance +
// epsilon), over the fan-in of each output channel. Parameters and their gradients are those of w.
#define WEIGHT_STANDARD_EPSILON 1e-10

enum op_mode {
    OP_TRAIN, // batch statistics per group; running statistics are updated group after group
    OP_EVAL,  // running averages; nothing is saved
};

// Where an op finds everything when it runs. Unused pointers are NULL. Gradients of parameters are
// overwritten, not added. Of the values of the forward pass, backward reads only: x of CONV,
// the normalisations, AFFINE and LINEAR; y of RELU, of ADD with `relu` and of BATCH_NORM with
// `join` and `relu`; params; saved.
struct op_buffers {
    const void *x, *x2; // inputs
    void *y;            // output
    const float *params;
    float *param_grads;
    float *state;   // BATCH_NORM running statistics
    void *saved;    // op_saved_bytes: what forward leaves for backward
    void *scratch;  // op_scratch_bytes: free between calls, shared by all ops
    const void *dy; // gradient of the output
    void *dx, *dx2; // gradients of the inputs, overwritten; NULL when not needed. One of the two
                    // may equal dy for RELU, ADD, the normalisations and AFFINE.
};

struct op; // an op created for one device; opaque

// One parameter tensor inside the flat blocks, for optimisers. Sorted by offset, no overlap.
struct param_span {
    uint64_t offset, count;
    bool decay; // weight decay and LARS scaling apply (not for biases and normalisation parameters)
    float learning_rate_scale;
};

// Learning rates, and whatever else changes from step to step, are read from device memory when the
// work runs, so that a recording may be run again with others.
struct lars_settings {
    const float *learning_rate;          // device memory
    float weight_decay, momentum, trust; // trust: eta
};

// What gradients become before SGD sees them; all zero: what they are. With wd and the ratio for
// decay spans only: g' = g + wd w; adaptive: g' = ratio (g + wd w), ratio = eta ||w|| / (||g|| + wd
// ||w|| + 1e-8), but g' = g if either norm is 0.
struct gradient_settings {
    float weight_decay;
    bool adaptive;   // LARS as solo-learn and suncet define it
    float trust;     // eta of the ratio
    bool clip;       // solo-learn: ratio = min(ratio / the span's learning rate, 1)
    bool rate_first; // suncet: the learning rate, without the span's scale, goes into g', so that
                     // the momentum remembers the rates of its steps
};

struct sgd_settings {
    const float *learning_rate; // device memory
    float momentum;
    bool nesterov;
    struct gradient_settings gradient;
};

struct adamw_settings {
    const float *learning_rate; // device memory
    double weight_decay, beta1, beta2, epsilon;
};

// Parameters that follow the ones an optimiser moves, within its pass: target += rate * (w -
// target), w as the step leaves it; those of the spans.
struct moving_target {
    float *params;
    const float *rate; // 1 - tau, in device memory
};

struct view_record;
struct device;
struct device_mark;
struct device_upload;
struct device_recording;

struct device_ops {
    const char *name;    // "ref", "cpu", "cuda"
    const char *summary; // one line for `byol --help`

    enum status (*open)(struct device **out, int threads, enum device_precision precision,
                        struct error *error);
    void (*close)(struct device *device);
    // Hardware and library in words: "oneDNN 2.6.3, avx512_core, 2 threads".
    void (*describe)(const struct device *device, char *text, size_t capacity);

    // Buffers: zero-filled, 64-byte aligned.
    enum status (*allocate)(struct device *device, void **memory, size_t bytes,
                            struct error *error);
    void (*release)(struct device *device, void *memory);
    enum status (*copy_in)(struct device *device, void *to, const void *host, size_t bytes);
    enum status (*copy_out)(struct device *device, void *host, const void *from, size_t bytes);
    enum status (*copy)(struct device *device, void *to, const void *from, size_t bytes);
    enum status (*fill_zero)(struct device *device, void *memory, size_t bytes);
    enum status (*synchronise)(struct device *device); // waits until everything queued is done

    // --- devices that work while the host goes on; all NULL and 0 on those that compute at once,
    // whose memory is the host's: batches are read there where they lie.

    unsigned steps_ahead; // steps that the host may queue while one is being computed

    // Host memory that is copied at full speed while device and host work.
    enum status (*host_allocate)(struct device *device, void **memory, size_t bytes,
                                 struct error *error);
    void (*host_release)(struct device *device, void *memory);
    // Queued like an op; `host` (from host_allocate) holds it once a mark set later was waited for.
    enum status (*copy_out_later)(struct device *device, void *host, const void *from,
                                  size_t bytes);
    enum status (*copy_in_later)(struct device *device, void *to, const void *host, size_t bytes);

    // A place in the queue.
    enum status (*mark_open)(struct device *device, struct device_mark **out, struct error *error);
    void (*mark_close)(struct device *device, struct device_mark *mark);
    enum status (*mark_set)(struct device *device, struct device_mark *mark);
    enum status (*mark_wait)(struct device *device, struct device_mark *mark); // the host waits

    // Room on the device that is filled while the device computes. Send as often as needed, take
    // before the ops that read, done after the last of them; then it may be sent to again. The
    // host memory is the caller's again after upload_wait.
    enum status (*upload_open)(struct device *device, struct device_upload **out, size_t bytes,
                               struct error *error);
    void (*upload_close)(struct device *device, struct device_upload *upload);
    enum status (*upload_send)(struct device *device, struct device_upload *upload, size_t offset,
                               const void *host, size_t bytes);
    enum status (*upload_wait)(struct device *device, struct device_upload *upload);
    enum status (*upload_take)(struct device *device, struct device_upload *upload,
                               const void **memory);
    enum status (*upload_done)(struct device *device, struct device_upload *upload);

    // Between begin and end, what the device is asked to queue (ops, copies on the device, fills,
    // losses, optimisers, copy_out_later, sums over peers) is noted and not done; record_run does
    // it all, with one call, as often as wanted. Every op has run once before. When end fails the
    // device goes on as if nothing had been recorded.
    enum status (*record_begin)(struct device *device, struct error *error);
    enum status (*record_end)(struct device *device, struct device_recording **out,
                              struct error *error);
    enum status (*record_run)(struct device *device, struct device_recording *recording);
    void (*record_close)(struct device *device, struct device_recording *recording);

    uint64_t (*peak_memory)(struct device *device); // bytes of it in use at most so far; may be
                                                    // NULL where it cannot tell

    // ---

    // IMAGE tensors to and from plain [n][h][w][c] float32 on the host: tests and debugging.
    size_t (*tensor_bytes)(const struct device *device, struct tensor_shape shape);
    enum status (*tensor_store)(struct device *device, struct tensor_shape shape, void *to,
                                const float *host);
    enum status (*tensor_fetch)(struct device *device, struct tensor_shape shape, float *host,
                                const void *from);
    enum status (*tensor_add)(struct device *device, struct tensor_shape shape, void *to,
                              const void *from); // to += from

    // The second half of views (augment/record.h): flip, colours, blur and solarize of bytes
    // [images][size][size][3] that hold crop and resize, each image by its own record, to plain
    // float32 as OP_INPUT reads it. What view_finish (augment/view.h) makes of each, but for
    // rounding; all in device memory. NULL on devices whose views are finished on the host.
    size_t (*render_views_scratch)(const struct device *device, uint32_t images, uint32_t size);
    enum status (*render_views)(struct device *device, uint32_t images, uint32_t size,
                                const uint8_t *bytes, const struct view_record *records, float *out,
                                void *scratch);

    // Ops. Create once, run often; `op_release` accepts NULL.
    enum status (*op_create)(struct device *device, const struct op_desc *desc, struct op **out,
                             struct error *error);
    void (*op_release)(struct device *device, struct op *op);
    size_t (*op_saved_bytes)(const struct op *op);
    size_t (*op_scratch_bytes)(const struct op *op);
    enum status (*op_forward)(struct device *device, struct op *op,
                              const struct op_buffers *buffers, enum op_mode mode);
    enum status (*op_backward)(struct device *device, struct op *op,
                               const struct op_buffers *buffers);

    // Losses over plain matrices. Each row's loss goes to `losses` [n]; gradients are those of
    // scale * sum of the rows. regression: 2 - 2 cos of the rows as the reference computes it: ||x^
    // - y^||^2, norms by rsqrt(max(sum x^2, 1e-12));
    //   dx overwritten; dy may be NULL (the target is a constant).
    // softmax: cross-entropy with labels [n] (int32; a negative label gives loss 0 and no
    // gradient); top1 and top5 [n]
    //   (uint8, may be NULL): among equal logits the higher class index ranks first.
    enum status (*regression_loss)(struct device *device, const float *x, const float *y,
                                   uint32_t n, uint32_t d, float scale, float *losses, float *dx,
                                   float *dy);
    // `scale` of softmax in device memory, of one float. A label that is no class is
    // STATUS_INVALID where the device computes at once; callers see to it elsewhere.
    enum status (*softmax_loss)(struct device *device, const float *logits, const int32_t *labels,
                                uint32_t n, uint32_t classes, const float *scale, float *losses,
                                float *dlogits, uint8_t *top1, uint8_t *top5);

    // Optimisers over flat blocks described by spans. Sums are taken in a fixed order: same bits
    // for any thread count. `target` may be NULL; otherwise the bits are those of a moving_average
    // after the step. LARS: g' = g + wd w; g'' = g' eta ||w|| / ||g'|| (1 if either is 0); both for
    // decay spans only; m = momentum m + g''; w -= lr m. SGD: m = momentum m + g'; w -= lr
    // (nesterov ? g' + momentum m : m); g' by `gradient`; with its rate_first lr is the span's
    // scale alone.
    enum status (*lars_step)(struct device *device, const struct param_span *spans, size_t count,
                             const struct lars_settings *settings, float *params,
                             const float *grads, float *momentum,
                             const struct moving_target *target);
    enum status (*sgd_step)(struct device *device, const struct param_span *spans, size_t count,
                            const struct sgd_settings *settings, float *params, const float *grads,
                            float *momentum, const struct moving_target *target);
    // AdamW: steps += 1 = t; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w = (1 -
    // lr wd) w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon); wd for decay spans
    // only. `steps` is one float; it stays at 2^24, where beta^t has long vanished.
    enum status (*adamw_step)(struct device *device, const struct param_span *spans, size_t count,
                              const struct adamw_settings *settings, float *params,
                              const float *grads, float *momentum, float *second_moment,
                              float *steps, const struct moving_target *target);
    // target += rate * (online - target), every element. rate = 1 - tau.
    enum status (*moving_average)(struct device *device, float *target, const float *online,
                                  uint64_t count, float rate);
    // sum += block, every element: gradients of one micro-batch after the other.
    enum status (*block_add)(struct device *device, float *sum, const float *block, uint64_t count);
    // block becomes its sum over the device's peers, the same bits on all.
    enum status (*block_sum_peers)(struct device *device, float *block, uint64_t count);
    // How the ops so far compute, where the device tried out several ways, as text, malloc'ed. One
    // that takes it before its first op computes such ops alike: to the bit, and without trying.
    // `taken` is false where hardware or libraries differ; it then tries by itself. Both NULL on
    // devices that try nothing out.
    enum status (*tell_choices)(const struct device *device, char **text, struct error *error);
    enum status (*take_choices)(struct device *device, const char *text, bool *taken,
                                struct error *error);

    // Row-major matrix product c[m][n] = a[m][k] b[k][n] (+ c when `accumulate`), with either
    // factor transposed in memory.
    enum status (*matrix_product)(struct device *device, bool transpose_a, bool transpose_b,
                                  uint32_t m, uint32_t n, uint32_t k, const float *a,
                                  const float *b, float *c, bool accumulate);
};

// Processes that learn together, each with its share of every batch. Whatever looks at a whole
// batch (the statistics of BATCH_NORM and their gradients) adds up its sums over all of them.
struct device_peers {
    unsigned count;
    unsigned rank; // of this process among them, from 0
    void *context;
    // values[i] becomes the sum over all peers, the same bits everywhere. All call it in the same
    // order with the same `count`.
    enum status (*sum)(void *context, double *values, size_t count);
    // The same for a flat block of parameters or gradients, in host memory.
    enum status (*sum_block)(void *context, float *values, uint64_t count);
};

// Every device begins with this.
struct device {
    const struct device_ops *ops;
    enum device_precision precision;
    const struct device_peers *peers; // NULL: alone. Set by the owner before the first op runs
    const char *failure; // the last STATUS_DEVICE in words; NULL: none, or none are known
    bool timed; // the owner wants the time of each op: networks wait for each one before the next
};

// "ref" or "cpu"; STATUS_NO_DEVICE with advice when it was not built in. `threads` 0 = one per
// core. A precision that the hardware lacks is STATUS_UNSUPPORTED; `ref` has only f32.
enum status device_open(struct device **out, const char *name, int threads,
                        enum device_precision precision, struct error *error);
void device_close(struct device **device);

// NULL-terminated list of what was built in.
extern const struct device_ops *const device_table[];

#endif
