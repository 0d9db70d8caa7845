// The gradient of the weights, whatever the precision: blocks of tiles are transformed, multiplied
// place by place and added to sums, which are transformed at the end. A sum is taken over its tiles
// in their order by one thread, so its bits do not depend on who takes it.
#include "trainer/device/cpu_winograd.h"

#include "trainer/device/cpu_winograd_weights.h"
#include "trainer/device/cpu_winograd_weights_form.h"

#include <omp.h>

#define STEPS       64          // of a panel: four of output and two of input channels fit into L1
#define ROUND_BYTES (4 << 20)   // of panels that are made and multiplied at a time, about
#define ONCE_BYTES  (20 << 20)  // of all panels, if they are made at once: they stay in L3
#define GROUP_BYTES (640 << 10) // of the sums of a group: they stay in L2
#define GROUPS      16
#define SUMS_PITCH  (WINOGRAD_VECTORS * WINOGRAD_BLOCK)
#define STAGGER     WINOGRAD_BLOCK // words between places, so that they share no cache set

// Tiles come in chunks, which one panel holds; channels in units, up to four blocks of input by
// four of output channels, whose sums of all places stay in L2 while they are worked on.
//
// Few channels: each thread makes the panels of one chunk after the other and multiplies them
// itself, for one group of chunks after the other. Each group has its own sums, which are added in
// the end in the order of groups.
// Many channels: the threads together make the panels of a round of chunks, then share its units.
// If there is only one round, sums are needed no longer than the unit is worked on.
struct plan {
    const struct winograd_form *form;
    size_t threads;
    size_t in_blocks, out_blocks;
    uint32_t high, wide;              // tiles of an image
    size_t tiles, chunk_tiles;        // all; of a chunk
    size_t chunks, groups;            // groups 0: many channels
    size_t slots;                     // chunks whose panels there are at a time
    size_t panel;                     // words of a panel
    size_t in_pitch, out_pitch;       // words of the panels of a place
    size_t unit_blocks;               // of input channels in a unit
    size_t units, out_units;          // all; side by side
    size_t place_pitch, unit_pitch;   // sums of a place, of a unit
    size_t sums_count;                // units that have sums at a time
    float *sums;                      // [groups][units], or [units], or [threads]
    uint32_t *in_panels, *out_panels; // [slots][places]
};

static bool has_instructions(const struct cpu_device *device)
{
#if defined(__x86_64__)
    return device->half ||
           (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
#else
    (void)device;
    return false;
#endif
}

static const struct winograd_form *choose_form(const struct cpu_device *device)
{
#if defined(__x86_64__)
    return device->half ? &winograd_form_half : &winograd_form_float;
#else
    (void)device;
    return NULL; // never asked: there are no instructions
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

static void plan_tiles(struct plan *plan, const struct op_desc *desc)
{
    plan->high = (uint32_t)divided_up(desc->out.h, plan->form->outputs);
    plan->wide = (uint32_t)divided_up(desc->out.w, plan->form->outputs);
    plan->tiles = (size_t)desc->out.n * plan->high * plan->wide;
    plan->chunk_tiles = STEPS * plan->form->step_tiles;
    plan->chunks = divided_up(plan->tiles, plan->chunk_tiles);
    plan->panel = STEPS * WINOGRAD_BLOCK;
    plan->in_pitch = plan->in_blocks * plan->panel + STAGGER;
    plan->out_pitch = plan->out_blocks * plan->panel + STAGGER;
}

// Units are as large as leaves every thread two of them.
static void plan_units(struct plan *plan)
{
    plan->out_units = divided_up(plan->out_blocks, WINOGRAD_VECTORS);
    plan->unit_blocks = WINOGRAD_VECTORS;
    plan->units = divided_up(plan->in_blocks, plan->unit_blocks) * plan->out_units;
    while (plan->groups == 0 && plan->unit_blocks > 1 && plan->units < 2 * plan->threads) {
        plan->unit_blocks /= 2;
        plan->units = divided_up(plan->in_blocks, plan->unit_blocks) * plan->out_units;
    }
    plan->place_pitch = plan->unit_blocks * WINOGRAD_BLOCK * SUMS_PITCH + STAGGER;
    plan->unit_pitch = plan->form->places * plan->place_pitch;
}

// Makes rounds worth the trouble of reading and writing all sums in each.
static void plan_rounds(struct plan *plan)
{
    size_t sums = plan->units * plan->unit_pitch * sizeof(float), slot = slot_bytes(plan);
    if (plan->chunks * slot <= ONCE_BYTES) {
        plan->slots = plan->chunks;
        plan->sums_count = plan->threads;
    } else {
        size_t bytes = sums / 2 > ROUND_BYTES ? sums / 2 : ROUND_BYTES;
        plan->slots = smaller(plan->chunks, divided_up(bytes, slot));
        plan->sums_count = plan->units;
    }
}

static struct plan make_plan(const struct cpu_device *device, const struct op_desc *desc)
{
    struct plan plan = {.form = choose_form(device),
                        .threads = (size_t)device->threads,
                        .in_blocks = desc->in.c / WINOGRAD_BLOCK,
                        .out_blocks = desc->out.c / WINOGRAD_BLOCK};
    size_t sums = (size_t)desc->in.c * desc->out.c * plan.form->places * sizeof(float);
    plan_tiles(&plan, desc);
    plan.groups = sums <= GROUP_BYTES ? smaller(plan.chunks, GROUPS) : 0;
    plan_units(&plan);
    if (plan.groups > 0) {
        plan.slots = plan.threads;
        plan.sums_count = plan.groups * plan.units;
    } else {
        plan_rounds(&plan);
    }
    return plan;
}

static size_t sums_bytes(const struct plan *plan)
{
    return plan->sums_count * plan->unit_pitch * sizeof(float);
}

static void place_plan(struct plan *plan, void *scratch)
{
    void *panels = (char *)scratch + sums_bytes(plan);
    plan->sums = scratch;
    plan->in_panels = panels;
    plan->out_panels = plan->in_panels + plan->slots * plan->form->places * plan->in_pitch;
}

bool cpu_winograd_weights_fits(const struct cpu_device *device, const struct op_desc *desc)
{
    return has_instructions(device) && desc->kernel == 3 && desc->stride == 1 &&
           desc->pad_top == 1 && desc->pad_left == 1 && desc->pad_bottom == 1 &&
           desc->pad_right == 1 && desc->in.c % WINOGRAD_BLOCK == 0 &&
           desc->out.c % WINOGRAD_BLOCK == 0;
}

// Measured against oneDNN 2.6.3: fewer channels leave too little work for each transform, tiles
// that reach far beyond the image waste theirs, few tiles do not pay for the last transform.
#define LEAST_CHANNELS 32
#define LEAST_STEPS    8
#define MANY_CHANNELS  256

bool cpu_winograd_weights_pays(const struct cpu_device *device, const struct op_desc *desc)
{
    if (!cpu_winograd_weights_fits(device, desc)) {
        return false;
    }
    struct plan plan = make_plan(device, desc);
    uint32_t fewest = desc->in.c < desc->out.c ? desc->in.c : desc->out.c;
    size_t pixels = (size_t)desc->out.h * desc->out.w;
    size_t covered = (size_t)plan.high * plan.wide * plan.form->outputs * plan.form->outputs;
    bool filled = 3 * pixels >= covered || (4 * pixels >= covered && fewest >= MANY_CHANNELS);
    return filled && fewest >= LEAST_CHANNELS && plan.tiles >= LEAST_STEPS * plan.form->step_tiles;
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

// --- one unit of channels

// Some blocks of channels and the chunks that are in slots.
struct unit {
    size_t in_block, in_count, out_block, out_count;
    float *sums;
    size_t chunk, slot, count; // the first chunk, its slot, how many
};

static struct unit find_unit(const struct plan *plan, size_t index, size_t sums)
{
    struct unit unit = {.in_block = index / plan->out_units * plan->unit_blocks,
                        .out_block = index % plan->out_units * WINOGRAD_VECTORS,
                        .sums = plan->sums + sums * plan->unit_pitch};
    unit.in_count = smaller(plan->in_blocks - unit.in_block, plan->unit_blocks);
    unit.out_count = smaller(plan->out_blocks - unit.out_block, WINOGRAD_VECTORS);
    return unit;
}

// Where the panels for one product begin.
struct operands {
    const uint32_t *in, *out;
};

static struct operands find_operands(const struct plan *plan, const struct unit *unit, size_t place,
                                     size_t slot)
{
    size_t at = slot * plan->form->places + place;
    return (struct operands){
        .in = plan->in_panels + at * plan->in_pitch + unit->in_block * plan->panel,
        .out = plan->out_panels + at * plan->out_pitch + unit->out_block * plan->panel};
}

static void multiply_place(const struct plan *plan, const struct unit *unit, size_t place,
                           size_t number, bool add)
{
    bool last = number + 1 == unit->count;
    struct operands now = find_operands(plan, unit, place, unit->slot + number);
    struct operands next = find_operands(plan, unit, (place + last) % plan->form->places,
                                         unit->slot + (last ? 0 : number + 1));
    struct winograd_product product = {
        .pitch = SUMS_PITCH,
        .b = now.out,
        .panel = plan->panel,
        .steps = divided_up(tiles_of_chunk(plan, unit->chunk + number), plan->form->step_tiles),
        .vectors = (unsigned)unit->out_count,
        .add = add,
    };
    for (size_t block = 0; block < unit->in_count; block++) {
        product.sums = unit->sums + place * plan->place_pitch + block * WINOGRAD_BLOCK * SUMS_PITCH;
        product.a = now.in + block * plan->panel;
        product.next_a = block + 1 < unit->in_count ? product.a + plan->panel : next.in;
        product.next_b = next.out + block * plan->panel;
        plan->form->multiply(&product);
    }
}

static void multiply_unit(const struct plan *plan, const struct unit *unit, bool add)
{
    for (size_t place = 0; place < plan->form->places; place++) {
        for (size_t number = 0; number < unit->count; number++) {
            multiply_place(plan, unit, place, number, add || number > 0);
        }
    }
}

#define TAPS       9
#define ROWS_AHEAD 2

// Brings closer where rows of gradients will be written.
static void fetch_gradients(const float *row, size_t tap_pitch, size_t count)
{
    for (size_t tap = 0; tap < TAPS; tap++) {
        for (size_t i = 0; i < count; i += WINOGRAD_BLOCK) {
            __builtin_prefetch(row + tap * tap_pitch + i, 1);
        }
    }
}

// The gradients of one of its input channels.
static void finish_row(const struct plan *plan, const struct unit *unit, size_t row,
                       float *gradient)
{
    size_t in = plan->in_blocks * WINOGRAD_BLOCK, out = plan->out_blocks * WINOGRAD_BLOCK;
    size_t channel = unit->in_block * WINOGRAD_BLOCK + row;
    struct winograd_sums sums = {.values = unit->sums + row * SUMS_PITCH,
                                 .pitch = plan->place_pitch,
                                 .groups = plan->groups,
                                 .group_pitch = plan->units * plan->unit_pitch};
    float *to = gradient + channel * out + unit->out_block * WINOGRAD_BLOCK;
    fetch_gradients(to + ROWS_AHEAD * out, in * out, unit->out_count * WINOGRAD_BLOCK);
    plan->form->finish(to, in * out, &sums, unit->out_count * WINOGRAD_BLOCK);
}

// --- by all threads of a parallel region

static void run_group(const struct plan *plan, const struct images *images, size_t group,
                      size_t slot)
{
    size_t first = group * plan->chunks / plan->groups;
    size_t end = (group + 1) * plan->chunks / plan->groups;
    for (size_t chunk = first; chunk < end; chunk++) {
        for (size_t block = 0; block < plan->in_blocks + plan->out_blocks; block++) {
            transform_block(plan, images, block, chunk, slot);
        }
        for (size_t index = 0; index < plan->units; index++) {
            struct unit unit = find_unit(plan, index, group * plan->units + index);
            unit.chunk = chunk;
            unit.slot = slot;
            unit.count = 1;
            multiply_unit(plan, &unit, chunk > first);
        }
    }
}

static void run_groups(const struct plan *plan, const struct images *images, float *gradient)
{
    size_t rows = plan->unit_blocks * WINOGRAD_BLOCK;
#pragma omp for schedule(dynamic)
    for (size_t group = 0; group < plan->groups; group++) {
        run_group(plan, images, group, (size_t)omp_get_thread_num());
    }
#pragma omp for schedule(static)
    for (size_t i = 0; i < plan->units * rows; i++) {
        struct unit unit = find_unit(plan, i / rows, i / rows);
        if (i % rows < unit.in_count * WINOGRAD_BLOCK) {
            finish_row(plan, &unit, i % rows, gradient);
        }
    }
}

static void run_round(const struct plan *plan, const struct images *images, size_t first,
                      float *gradient)
{
    size_t count = smaller(plan->chunks - first, plan->slots);
    size_t blocks = plan->in_blocks + plan->out_blocks;
    bool once = count == plan->chunks, last = first + count == plan->chunks;
#pragma omp for schedule(static)
    for (size_t i = 0; i < count * blocks; i++) {
        transform_block(plan, images, i % blocks, first + i / blocks, i / blocks);
    }
#pragma omp for schedule(dynamic)
    for (size_t index = 0; index < plan->units; index++) {
        struct unit unit = find_unit(plan, index, once ? (size_t)omp_get_thread_num() : index);
        unit.chunk = first;
        unit.count = count;
        multiply_unit(plan, &unit, first > 0);
        for (size_t row = 0; last && row < unit.in_count * WINOGRAD_BLOCK; row++) {
            finish_row(plan, &unit, row, gradient);
        }
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
        if (plan.groups > 0) {
            run_groups(&plan, &images, gradient);
        } else {
            for (size_t chunk = 0; chunk < plan.chunks; chunk += plan.slots) {
                run_round(&plan, &images, chunk, gradient);
            }
        }
    }
}
