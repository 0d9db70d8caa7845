// Batch normalisation of images: who does what when. The loops over values: cpu_norm_kernels.c.
//
// Both directions read everything twice: for sums over a group's images, and with what follows from
// them. Blocks of channels have nothing to do with each other, so a thread takes one block through
// both passes, group after group, and the second pass finds in the cache what the first one read.
// Where blocks are too few for the threads, or other processes have to add their sums, all threads
// share the images of each block instead, and meet between the passes.
//
// A pass that needs sums leaves one partial sum per plane (one block of one image); they are added
// up in the order of the images. So the bits do not depend on the number of threads.
#include "trainer/device/cpu_norm.h"

#include <math.h>
#include <string.h>

struct cpu_norm {
    struct cpu_op base;
    struct cpu_layout layout;
    size_t padded; // channels, with the last block filled up
    size_t images; // of a group
    size_t plane;  // values
    bool half;
};

// How the op's scratch memory is used. `padded` channels everywhere: what fills up a block is zero.
struct workspace {
    struct norm_sums *sums; // [groups][blocks][images]
    double *totals;         // [groups][2][padded]
    float *statistics;      // [groups][2][padded]: mean, 1 / deviation
    float *means;           // [groups][2][padded]: of gradients, of products
};

// One run of the op.
struct norm_call {
    const struct cpu_norm *norm;
    const struct cpu_device *device;
    const struct op_buffers *buffers;
    const struct device_peers *peers; // NULL: alone
    struct workspace work;
    struct norm_tensors tensors;
    float *statistics; // kept for backward, or in the workspace
    double count;      // of values that a channel's sums are made of, over all peers
    float steps;       // that the running statistics have seen before
};

// Some images of one group's block of channels.
struct piece {
    size_t group, block, first, images;
};

// --- running statistics --------------------------------------------------------------------------

// Of channels [first, first + count) at step `step`; `mean` and `variance` begin with the first.
static void update_channels(float *state, float step, uint32_t channels, size_t first, size_t count,
                            const float *mean, const float *variance)
{
    float *hidden_mean = state + 1 + first, *hidden_variance = hidden_mean + channels;
    float *average_mean = hidden_variance + channels, *average_variance = average_mean + channels;
    const float fresh = 1.0f - BATCH_NORM_DECAY;
    float weight = 1.0f - powf(BATCH_NORM_DECAY, step);
    for (size_t c = 0; c < count; c++) {
        hidden_mean[c] = BATCH_NORM_DECAY * hidden_mean[c] + fresh * mean[c];
        hidden_variance[c] = BATCH_NORM_DECAY * hidden_variance[c] + fresh * variance[c];
        average_mean[c] = hidden_mean[c] / weight;
        average_variance[c] = hidden_variance[c] / weight;
    }
}

void cpu_running_update(float *state, const float *mean, const float *variance, uint32_t channels)
{
    state[0] += 1.0f;
    update_channels(state, state[0], channels, 0, channels, mean, variance);
}

// --- numbers per channel -------------------------------------------------------------------------

static const struct op_desc *desc_of(const struct norm_call *call)
{
    return &call->norm->base.base.desc;
}

// Where the first of a group's two vectors has the block's channels; the second is `padded` on.
static size_t channels_at(const struct norm_call *call, size_t group, size_t block)
{
    return 2 * group * call->norm->padded + block * call->norm->layout.block;
}

// Channels of the block that exist.
static size_t block_channels(const struct norm_call *call, size_t block)
{
    size_t width = call->norm->layout.block, left = desc_of(call)->in.c - block * width;
    return left < width ? left : width;
}

static float inverse_deviation(float variance)
{
    return 1.0f / sqrtf(variance + BATCH_NORM_EPSILON);
}

// Adds up what the planes of a block left, in the order of the images.
static void fold(const struct norm_call *call, size_t group, size_t block)
{
    const struct cpu_norm *norm = call->norm;
    const struct norm_sums *sums =
        call->work.sums + (group * norm->layout.blocks + block) * norm->images;
    struct norm_sums all;
    cpu_norm_total(&all, sums, norm->images);
    size_t width = norm->layout.block;
    double *first = call->work.totals + channels_at(call, group, block);
    double *second = first + norm->padded;
    memset(first, 0, width * sizeof *first);
    memset(second, 0, width * sizeof *second);
    for (size_t i = 0; i < CPU_LANES; i++) { // narrower blocks repeat within the lanes
        first[i % width] += all.first[i];
        second[i % width] += all.second[i];
    }
}

// From sums to mean and inverse deviation, and on to the running statistics.
static void take_statistics(const struct norm_call *call, size_t group, size_t block)
{
    size_t at = channels_at(call, group, block), width = call->norm->layout.block;
    const double *sums = call->work.totals + at, *squares = sums + call->norm->padded;
    float *mean = call->statistics + at, *inverse = mean + call->norm->padded;
    for (size_t c = 0; c < width; c++) {
        double average = sums[c] / call->count;
        mean[c] = (float)average;
        // the variance, until the state has seen it
        inverse[c] = (float)fmax(squares[c] / call->count - average * average, 0.0);
    }
    update_channels(call->buffers->state, call->steps + (float)(group + 1), desc_of(call)->in.c,
                    block * width, block_channels(call, block), mean, inverse);
    for (size_t c = 0; c < width; c++) {
        inverse[c] = inverse_deviation(inverse[c]);
    }
}

static void recall_statistics(const struct norm_call *call, size_t group, size_t block)
{
    size_t at = channels_at(call, group, block), width = call->norm->layout.block;
    uint32_t channels = desc_of(call)->in.c;
    const float *average = call->buffers->state + 1 + 2 * (size_t)channels + block * width;
    float *mean = call->statistics + at, *inverse = mean + call->norm->padded;
    size_t real = block_channels(call, block);
    for (size_t c = 0; c < width; c++) {
        mean[c] = c < real ? average[c] : 0;
        inverse[c] = inverse_deviation(c < real ? average[channels + c] : 0);
    }
}

static void take_means(const struct norm_call *call, size_t group, size_t block)
{
    size_t at = channels_at(call, group, block), padded = call->norm->padded;
    for (size_t c = 0; c < call->norm->layout.block; c++) {
        call->work.means[at + c] = (float)(call->work.totals[at + c] / call->count);
        call->work.means[at + padded + c] =
            (float)(call->work.totals[at + padded + c] / call->count);
    }
}

// The parameters' gradients, summed over the groups in order.
static void take_gradients(const struct norm_call *call, size_t group, size_t block)
{
    const double *sums = call->work.totals + channels_at(call, group, block);
    uint32_t channels = desc_of(call)->in.c;
    float *scale = call->buffers->param_grads + block * call->norm->layout.block;
    float *offset = scale + channels;
    for (size_t c = 0; c < block_channels(call, block); c++) {
        scale[c] = (group == 0 ? 0.0f : scale[c]) + (float)sums[call->norm->padded + c];
        offset[c] = (group == 0 ? 0.0f : offset[c]) + (float)sums[c];
    }
}

// --- pieces --------------------------------------------------------------------------------------

// `width` is a power of two; values past `count` are zero.
static void repeat(cpu_lanes *to, const float *values, size_t width, size_t count)
{
    for (size_t i = 0; i < CPU_LANES; i++) {
        size_t c = i & (width - 1);
        (*to)[i] = c < count ? values[c] : 0.0f;
    }
}

static void lanes_of(struct norm_lanes *out, const struct norm_call *call, size_t group,
                     size_t block)
{
    size_t width = call->norm->layout.block, padded = call->norm->padded;
    size_t at = channels_at(call, group, block), count = block_channels(call, block);
    const float *scale = call->buffers->params + block * width;
    cpu_lanes scales = {0};
    repeat(&out->mean, call->statistics + at, width, width);
    repeat(&out->inverse, call->statistics + at + padded, width, width);
    repeat(&scales, scale, width, count);
    repeat(&out->offset, scale + desc_of(call)->in.c, width, count);
    out->factor = scales * out->inverse;
    repeat(&out->mean_gradient, call->work.means + at, width, width);
    repeat(&out->mean_product, call->work.means + at + padded, width, width);
}

static struct norm_span span_of(const struct norm_call *call, const struct piece *piece,
                                const struct norm_lanes *lanes)
{
    const struct cpu_norm *norm = call->norm;
    size_t image = piece->group * norm->images + piece->first;
    return (struct norm_span){.first = (image * norm->layout.blocks + piece->block) * norm->plane,
                              .stride = norm->layout.blocks * norm->plane,
                              .values = norm->plane,
                              .images = piece->images,
                              .half = norm->half,
                              .relu = norm->base.base.desc.relu,
                              .join = norm->base.base.desc.join,
                              .lanes = lanes};
}

static struct norm_sums *sums_of(const struct norm_call *call, const struct piece *piece)
{
    const struct cpu_norm *norm = call->norm;
    size_t planes = (piece->group * norm->layout.blocks + piece->block) * norm->images;
    return call->work.sums + planes + piece->first;
}

static void measure_piece(const struct norm_call *call, const struct piece *piece)
{
    struct norm_span span = span_of(call, piece, NULL);
    cpu_norm_measure(sums_of(call, piece), &call->tensors, &span);
}

static void apply_piece(const struct norm_call *call, const struct piece *piece)
{
    struct norm_lanes lanes;
    lanes_of(&lanes, call, piece->group, piece->block);
    struct norm_span span = span_of(call, piece, &lanes);
    cpu_norm_apply(&call->tensors, &span);
}

static void collect_piece(const struct norm_call *call, const struct piece *piece)
{
    struct norm_lanes lanes;
    lanes_of(&lanes, call, piece->group, piece->block);
    struct norm_span span = span_of(call, piece, &lanes);
    cpu_norm_collect(sums_of(call, piece), &call->tensors, &span);
}

static void differentiate_piece(const struct norm_call *call, const struct piece *piece)
{
    if (call->tensors.dx != NULL) {
        struct norm_lanes lanes;
        lanes_of(&lanes, call, piece->group, piece->block);
        struct norm_span span = span_of(call, piece, &lanes);
        cpu_norm_differentiate(&call->tensors, &span);
    }
}

// --- threads -------------------------------------------------------------------------------------

typedef void piece_work(const struct norm_call *call, const struct piece *piece);
typedef void block_work(const struct norm_call *call, size_t group, size_t block);

// A thread takes a block's groups in order.
static void each_block(const struct norm_call *call, block_work *work)
{
#pragma omp parallel for num_threads(call->device->threads)
    for (size_t block = 0; block < call->norm->layout.blocks; block++) {
        for (size_t group = 0; group < desc_of(call)->groups; group++) {
            work(call, group, block);
        }
    }
}

static void each_piece(const struct norm_call *call, piece_work *work)
{
    const struct cpu_norm *norm = call->norm;
    size_t blocks = norm->layout.blocks, wanted = 4 * (size_t)call->device->threads / blocks + 1;
    size_t slices = wanted < norm->images ? wanted : norm->images;
#pragma omp parallel for num_threads(call->device->threads)
    for (size_t i = 0; i < desc_of(call)->groups * blocks * slices; i++) {
        size_t slice = i % slices, first = slice * norm->images / slices;
        struct piece piece = {.group = i / slices / blocks,
                              .block = i / slices % blocks,
                              .first = first,
                              .images = (slice + 1) * norm->images / slices - first};
        work(call, &piece);
    }
}

// Whether blocks keep all threads busy, and nobody else's sums are needed.
static bool blocks_stand_alone(const struct norm_call *call)
{
    size_t threads = (size_t)call->device->threads, blocks = call->norm->layout.blocks;
    return call->peers == NULL && (blocks % threads == 0 || blocks >= 4 * threads);
}

static enum status sum_over_peers(const struct norm_call *call)
{
    size_t count = desc_of(call)->groups * 2 * call->norm->padded;
    return call->peers == NULL ? STATUS_OK
                               : call->peers->sum(call->peers->context, call->work.totals, count);
}

static void forward_block(const struct norm_call *call, size_t group, size_t block)
{
    struct piece whole = {group, block, 0, call->norm->images};
    measure_piece(call, &whole);
    fold(call, group, block);
    take_statistics(call, group, block);
    apply_piece(call, &whole);
}

static void backward_block(const struct norm_call *call, size_t group, size_t block)
{
    struct piece whole = {group, block, 0, call->norm->images};
    collect_piece(call, &whole);
    fold(call, group, block);
    take_gradients(call, group, block);
    take_means(call, group, block);
    differentiate_piece(call, &whole);
}

// The same in steps that all threads take together.
static enum status forward_together(const struct norm_call *call)
{
    each_piece(call, measure_piece);
    each_block(call, fold);
    enum status status = sum_over_peers(call);
    if (status == STATUS_OK) {
        each_block(call, take_statistics);
        each_piece(call, apply_piece);
    }
    return status;
}

// The parameters' gradients are this process's share: whoever adds up gradients adds them up too.
static enum status backward_together(const struct norm_call *call)
{
    each_piece(call, collect_piece);
    each_block(call, fold);
    each_block(call, take_gradients);
    enum status status = sum_over_peers(call);
    if (status == STATUS_OK) {
        each_block(call, take_means);
        each_piece(call, differentiate_piece);
    }
    return status;
}

// --- the op --------------------------------------------------------------------------------------

static size_t workspace_of(struct workspace *out, const struct cpu_norm *norm, void *scratch)
{
    size_t groups = norm->base.base.desc.groups, vectors = groups * 2 * norm->padded, used = 0;
    uintptr_t at = (uintptr_t)scratch; // NULL when only the size is asked for
    out->sums = (struct norm_sums *)at;
    used += cpu_aligned(groups * norm->layout.blocks * norm->images * sizeof *out->sums);
    out->totals = (double *)(at + used);
    used += cpu_aligned(vectors * sizeof *out->totals);
    out->statistics = (float *)(at + used);
    used += cpu_aligned(vectors * sizeof *out->statistics);
    out->means = (float *)(at + used);
    return used + cpu_aligned(vectors * sizeof *out->means);
}

static struct norm_call call_of(const struct cpu_device *device, const struct cpu_op *op,
                                const struct op_buffers *buffers)
{
    const struct cpu_norm *norm = (const struct cpu_norm *)op;
    struct norm_call call = {.norm = norm,
                             .device = device,
                             .buffers = buffers,
                             .count = (double)(norm->images * norm->layout.pixels)};
    if (device->base.peers != NULL && device->base.peers->count > 1) {
        call.peers = device->base.peers;
        call.count *= (double)call.peers->count;
    }
    workspace_of(&call.work, norm, buffers->scratch);
    return call;
}

static enum status norm_forward(struct cpu_device *device, struct cpu_op *op,
                                const struct op_buffers *buffers, enum op_mode mode)
{
    const struct op_desc *desc = &op->base.desc;
    struct norm_call call = call_of(device, op, buffers);
    call.tensors = (struct norm_tensors){.x = buffers->x, .x2 = buffers->x2, .y = buffers->y};
    call.statistics =
        mode == OP_TRAIN && desc->need_backward ? buffers->saved : call.work.statistics;
    call.steps = buffers->state[0];
    if (mode == OP_EVAL) {
        each_block(&call, recall_statistics);
        each_piece(&call, apply_piece);
        return STATUS_OK;
    }
    enum status status = STATUS_OK;
    if (blocks_stand_alone(&call)) {
        each_block(&call, forward_block);
    } else {
        status = forward_together(&call);
    }
    for (uint32_t group = 0; group < desc->groups; group++) {
        buffers->state[0] += 1.0f;
    }
    return status;
}

static enum status norm_backward(struct cpu_device *device, struct cpu_op *op,
                                 const struct op_buffers *buffers)
{
    const struct op_desc *desc = &op->base.desc;
    struct norm_call call = call_of(device, op, buffers);
    bool pass_on = desc->need_input_gradient;
    call.tensors = (struct norm_tensors){.x = buffers->x,
                                         .dy = buffers->dy,
                                         .y = buffers->y,
                                         .dx = pass_on ? buffers->dx : NULL,
                                         .dx2 = pass_on && desc->join ? buffers->dx2 : NULL};
    call.statistics = buffers->saved;
    if (!blocks_stand_alone(&call)) {
        return backward_together(&call);
    }
    each_block(&call, backward_block);
    return STATUS_OK;
}

enum status cpu_norm_create(struct cpu_device *device, const struct op_desc *desc,
                            struct cpu_op **out, struct error *error)
{
    struct cpu_norm *norm = cpu_op_allocate(sizeof *norm, desc, error);
    if (norm == NULL) {
        return STATUS_NO_MEMORY;
    }
    *out = &norm->base;
    norm->base.forward = norm_forward;
    norm->base.backward = norm_backward;
    norm->half = device->half;
    norm->layout = cpu_layout_of(desc->in);
    norm->padded = (size_t)norm->layout.blocks * norm->layout.block;
    norm->images = desc->in.n / desc->groups;
    norm->plane = norm->layout.pixels * norm->layout.block;
    struct workspace work;
    norm->base.base.scratch_bytes = workspace_of(&work, norm, NULL);
    norm->base.base.saved_bytes =
        desc->need_backward ? 2 * desc->groups * norm->padded * sizeof(float) : 0;
    return STATUS_OK;
}
