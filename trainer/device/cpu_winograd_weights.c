// The gradient of the weights, whatever the precision: blocks of tiles are transformed, multiplied
// place by place and added to sums, which are transformed at the end. A sum is taken over its tiles
// in their order by one thread, so its bits do not depend on who takes it.
#include "trainer/device/cpu_winograd.h"

#include "trainer/device/cpu_winograd_weights.h"

#include <omp.h>

#define SHARED_STEPS 64        // of a panel: four of output and one of input channels fit into L1
#define SHARED_BYTES (8 << 20) // of panels that are made and multiplied at a time
#define ALONE_STEPS  32        // so that the panels of 64 channels, in and out, and the sums fit
#define ALONE_BYTES  (1 << 19) // into L2
#define GROUPS       16
#define STAGGER      WINOGRAD_BLOCK // words between places, so that they share no cache set

// Few channels: each thread makes panels for itself and multiplies them while they are in its L2,
// for one group of chunks of tiles after the other. Each group has its own sums, which are added in
// the end in the order of groups. Many channels: the sums of a group would be too many. The threads
// together make the panels of a round of chunks, then share its places.
struct plan {
    const struct winograd_form *form;
    size_t in_blocks, out_blocks;
    uint32_t high, wide;
    size_t tiles, steps, chunk_tiles; // all; of the panels of a chunk
    size_t chunks, groups;
    size_t slots;                     // chunks whose panels there are at a time
    size_t panel;                     // words of a panel
    size_t in_pitch, out_pitch;       // words of the panels of a place
    size_t sum_pitch, group_pitch;    // sums of a place, of a group
    float *sums;                      // [groups][places]
    uint32_t *in_panels, *out_panels; // [slots][places]
};

static const struct winograd_form *choose_form(const struct cpu_device *device)
{
#if defined(__x86_64__)
    return device->half ? &winograd_form_half : NULL;
#else
    (void)device;
    return NULL;
#endif
}

static size_t divided_up(size_t count, size_t by)
{
    return (count + by - 1) / by;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t slot_bytes(const struct plan *plan)
{
    return plan->form->places * (plan->in_pitch + plan->out_pitch) * sizeof(uint32_t);
}

static void plan_chunks(struct plan *plan, size_t steps)
{
    plan->steps = steps;
    plan->chunk_tiles = steps * plan->form->step_tiles;
    plan->chunks = divided_up(plan->tiles, plan->chunk_tiles);
    plan->panel = steps * WINOGRAD_BLOCK;
    plan->in_pitch = plan->in_blocks * plan->panel + STAGGER;
    plan->out_pitch = plan->out_blocks * plan->panel + STAGGER;
}

static struct plan make_plan(const struct cpu_device *device, const struct op_desc *desc)
{
    struct plan plan = {.form = choose_form(device),
                        .in_blocks = desc->in.c / WINOGRAD_BLOCK,
                        .out_blocks = desc->out.c / WINOGRAD_BLOCK};
    plan.high = (uint32_t)divided_up(desc->out.h, plan.form->outputs);
    plan.wide = (uint32_t)divided_up(desc->out.w, plan.form->outputs);
    plan.tiles = (size_t)desc->out.n * plan.high * plan.wide;
    plan.sum_pitch = (size_t)desc->in.c * desc->out.c + STAGGER;
    plan.group_pitch = plan.form->places * plan.sum_pitch;
    if (plan.group_pitch * sizeof(float) <= ALONE_BYTES) {
        plan_chunks(&plan, ALONE_STEPS);
        plan.groups = smaller(plan.chunks, GROUPS);
        plan.slots = (size_t)device->threads;
    } else {
        plan_chunks(&plan, SHARED_STEPS);
        plan.groups = 1;
        plan.slots = smaller(plan.chunks, 1 + SHARED_BYTES / slot_bytes(&plan));
    }
    return plan;
}

static size_t sums_bytes(const struct plan *plan)
{
    return plan->groups * plan->group_pitch * sizeof(float);
}

static void place_plan(struct plan *plan, void *scratch)
{
    plan->sums = scratch;
    plan->in_panels = (uint32_t *)(plan->sums + plan->groups * plan->group_pitch);
    plan->out_panels = plan->in_panels + plan->slots * plan->form->places * plan->in_pitch;
}

bool cpu_winograd_weights_possible(const struct cpu_device *device, const struct op_desc *desc)
{
    return choose_form(device) != NULL && desc->kernel == 3 && desc->stride == 1 &&
           desc->pad_top == 1 && desc->pad_left == 1 && desc->pad_bottom == 1 &&
           desc->pad_right == 1 && desc->in.c % WINOGRAD_BLOCK == 0 &&
           desc->out.c % WINOGRAD_BLOCK == 0;
}

bool cpu_winograd_weights_pays(const struct cpu_device *device, const struct op_desc *desc)
{
    return cpu_winograd_weights_possible(device, desc);
}

size_t cpu_winograd_weights_scratch(const struct cpu_device *device, const struct op_desc *desc)
{
    struct plan plan = make_plan(device, desc);
    return cpu_aligned(sums_bytes(&plan) + plan.slots * slot_bytes(&plan));
}

// --- one chunk of tiles

struct images {
    const void *x, *dy;
    size_t pixels; // of one image
    uint32_t h, w;
    bool half;
};

static size_t tiles_of_chunk(const struct plan *plan, size_t chunk)
{
    return smaller(plan->tiles - chunk * plan->chunk_tiles, plan->chunk_tiles);
}

// The tiles of one block of channels; the blocks of x come before those of dy.
static struct winograd_walk make_walk(const struct plan *plan, const struct images *images,
                                      size_t block, size_t chunk)
{
    bool image = block < plan->in_blocks;
    size_t index = image ? block : block - plan->in_blocks;
    size_t values = images->pixels * WINOGRAD_BLOCK;
    const char *first = image ? images->x : images->dy;
    return (struct winograd_walk){
        .plane = first + index * values * cpu_value_bytes(images->half),
        .image_pitch = (image ? plan->in_blocks : plan->out_blocks) * values,
        .h = images->h,
        .w = images->w,
        .high = plan->high,
        .wide = plan->wide,
        .first = chunk * plan->chunk_tiles,
        .count = tiles_of_chunk(plan, chunk),
    };
}

// Address of the first pixel of a walk.
static uintptr_t beginning(const struct plan *plan, const struct winograd_walk *walk, bool half)
{
    struct winograd_position position = winograd_start(walk);
    size_t pixel = ((size_t)position.row * walk->w + position.column) * plan->form->outputs;
    size_t value = position.image * walk->image_pitch + pixel * WINOGRAD_BLOCK;
    return (uintptr_t)walk->plane + value * cpu_value_bytes(half);
}

static void transform_block(const struct plan *plan, const struct images *images, size_t block,
                            size_t chunk, size_t slot)
{
    bool image = block < plan->in_blocks, last = block + 1 == plan->in_blocks + plan->out_blocks;
    struct winograd_walk walk = make_walk(plan, images, block, chunk);
    if (!last || chunk + 1 < plan->chunks) {
        struct winograd_walk next =
            make_walk(plan, images, last ? 0 : block + 1, last ? chunk + 1 : chunk);
        walk.ahead = (ptrdiff_t)(beginning(plan, &next, images->half) -
                                 beginning(plan, &walk, images->half));
    }
    size_t pitch = image ? plan->in_pitch : plan->out_pitch;
    size_t index = image ? block : block - plan->in_blocks;
    uint32_t *to = (image ? plan->in_panels : plan->out_panels) +
                   slot * plan->form->places * pitch + index * plan->panel;
    (image ? plan->form->transform_image : plan->form->transform_gradient)(to, pitch, &walk);
}

// Where the panels for one product begin.
struct operands {
    const uint32_t *in, *out;
};

static struct operands find_operands(const struct plan *plan, size_t place, size_t part,
                                     size_t slot)
{
    size_t at = slot * plan->form->places + place;
    return (struct operands){.in = plan->in_panels + at * plan->in_pitch,
                             .out = plan->out_panels + at * plan->out_pitch +
                                    part * WINOGRAD_VECTORS * plan->panel};
}

// The products of a place with a part of up to four blocks of output channels. `next`: what will be
// multiplied after this.
static void multiply_part(const struct plan *plan, size_t place, size_t part, size_t chunk,
                          size_t slot, const struct operands *next, float *group_sums, bool add)
{
    size_t out_block = part * WINOGRAD_VECTORS;
    float *sums = group_sums + place * plan->sum_pitch + out_block * WINOGRAD_BLOCK;
    struct operands now = find_operands(plan, place, part, slot);
    struct winograd_product product = {
        .pitch = plan->out_blocks * WINOGRAD_BLOCK,
        .b = now.out,
        .panel = plan->panel,
        .steps = divided_up(tiles_of_chunk(plan, chunk), plan->form->step_tiles),
        .vectors = (unsigned)smaller(plan->out_blocks - out_block, WINOGRAD_VECTORS),
        .add = add,
    };
    for (size_t block = 0; block < plan->in_blocks; block++) {
        product.sums = sums + block * WINOGRAD_BLOCK * product.pitch;
        product.a = now.in + block * plan->panel;
        product.next_a = block + 1 < plan->in_blocks ? product.a + plan->panel : next->in;
        product.next_b = next->out + block % WINOGRAD_VECTORS * plan->panel;
        plan->form->multiply(&product);
    }
}

// --- by all threads of a parallel region

static void run_group(const struct plan *plan, const struct images *images, size_t group,
                      size_t slot)
{
    size_t first = group * plan->chunks / plan->groups;
    size_t end = (group + 1) * plan->chunks / plan->groups;
    size_t parts = divided_up(plan->out_blocks, WINOGRAD_VECTORS);
    float *sums = plan->sums + group * plan->group_pitch;
    for (size_t chunk = first; chunk < end; chunk++) {
        for (size_t block = 0; block < plan->in_blocks + plan->out_blocks; block++) {
            transform_block(plan, images, block, chunk, slot);
        }
        for (size_t unit = 0; unit < plan->form->places * parts; unit++) {
            struct operands next =
                find_operands(plan, (unit + 1) / parts, (unit + 1) % parts, slot);
            multiply_part(plan, unit / parts, unit % parts, chunk, slot, &next, sums,
                          chunk > first);
        }
    }
}

static void run_groups(const struct plan *plan, const struct images *images)
{
#pragma omp for schedule(dynamic)
    for (size_t group = 0; group < plan->groups; group++) {
        run_group(plan, images, group, (size_t)omp_get_thread_num());
    }
}

static void run_round(const struct plan *plan, const struct images *images, size_t first)
{
    size_t count = smaller(plan->chunks - first, plan->slots);
    size_t blocks = plan->in_blocks + plan->out_blocks;
    size_t parts = divided_up(plan->out_blocks, WINOGRAD_VECTORS);
#pragma omp for schedule(static)
    for (size_t unit = 0; unit < count * blocks; unit++) {
        transform_block(plan, images, unit % blocks, first + unit / blocks, unit / blocks);
    }
#pragma omp for schedule(static)
    for (size_t unit = 0; unit < plan->form->places * parts; unit++) {
        for (size_t slot = 0; slot < count; slot++) {
            bool last = slot + 1 == count;
            size_t next_unit = last ? unit + 1 : unit;
            struct operands next =
                find_operands(plan, next_unit / parts, next_unit % parts, last ? 0 : slot + 1);
            multiply_part(plan, unit / parts, unit % parts, first + slot, slot, &next, plan->sums,
                          first + slot > 0);
        }
    }
}

static void finish(const struct plan *plan, float *gradient)
{
    size_t in = plan->in_blocks * WINOGRAD_BLOCK, out = plan->out_blocks * WINOGRAD_BLOCK;
#pragma omp for schedule(static)
    for (size_t i = 0; i < in; i++) {
        struct winograd_sums sums = {.values = plan->sums + i * out,
                                     .pitch = plan->sum_pitch,
                                     .groups = plan->groups,
                                     .group_pitch = plan->group_pitch};
        plan->form->finish(gradient + i * out, in * out, &sums, out);
    }
}

void cpu_winograd_backward_weights(const struct cpu_device *device, const struct op_desc *desc,
                                   float *gradient, const void *x, const void *dy, void *scratch)
{
    struct plan plan = make_plan(device, desc);
    struct images images = {.x = x,
                            .dy = dy,
                            .pixels = (size_t)desc->in.h * desc->in.w,
                            .h = desc->in.h,
                            .w = desc->in.w,
                            .half = device->half};
    place_plan(&plan, scratch);
#pragma omp parallel num_threads(device->threads)
    {
        if (plan.groups > 1) {
            run_groups(&plan, &images);
        } else {
            for (size_t chunk = 0; chunk < plan.chunks; chunk += plan.slots) {
                run_round(&plan, &images, chunk);
            }
        }
        finish(&plan, gradient);
    }
}
