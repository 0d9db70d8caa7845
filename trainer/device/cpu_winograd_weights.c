// The gradient of the weights, whatever the precision: blocks of tiles are transformed, multiplied
// place by place and added to sums, which are transformed at the end. A sum is taken over its tiles
// in their order by one thread, so its bits do not depend on who takes it.
#include "trainer/device/cpu_winograd.h"

#include "trainer/device/cpu_winograd_weights.h"

#define STEPS   64             // of a panel: four of output and one of input channels fit into L1
#define ROUND   (8 << 20)      // bytes of panels that are made and multiplied at a time
#define STAGGER WINOGRAD_BLOCK // words between places, so that they share no cache set

struct plan {
    const struct winograd_form *form;
    size_t in_blocks, out_blocks;
    uint32_t high, wide;
    size_t tiles, chunk_tiles; // all; of the panels of one chunk
    size_t chunks, round_chunks;
    size_t panel;                     // words of a panel
    size_t in_pitch, out_pitch;       // words of the panels of a place
    size_t sum_pitch;                 // sums of a place
    float *sums;                      // [places]
    uint32_t *in_panels, *out_panels; // [chunks of a round][places]
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

static size_t round_bytes(const struct plan *plan)
{
    return plan->round_chunks * plan->form->places * (plan->in_pitch + plan->out_pitch) *
           sizeof(uint32_t);
}

static struct plan make_plan(const struct winograd_form *form, const struct op_desc *desc)
{
    struct plan plan = {.form = form,
                        .in_blocks = desc->in.c / WINOGRAD_BLOCK,
                        .out_blocks = desc->out.c / WINOGRAD_BLOCK,
                        .high = (uint32_t)divided_up(desc->out.h, form->outputs),
                        .wide = (uint32_t)divided_up(desc->out.w, form->outputs),
                        .panel = STEPS * WINOGRAD_BLOCK,
                        .round_chunks = 1};
    plan.tiles = (size_t)desc->out.n * plan.high * plan.wide;
    plan.chunk_tiles = STEPS * form->step_tiles;
    plan.chunks = divided_up(plan.tiles, plan.chunk_tiles);
    plan.in_pitch = plan.in_blocks * plan.panel + STAGGER;
    plan.out_pitch = plan.out_blocks * plan.panel + STAGGER;
    plan.sum_pitch = (size_t)desc->in.c * desc->out.c + STAGGER;
    plan.round_chunks = ROUND / round_bytes(&plan);
    plan.round_chunks = plan.round_chunks < 1 ? 1 : plan.round_chunks;
    plan.round_chunks = plan.round_chunks < plan.chunks ? plan.round_chunks : plan.chunks;
    return plan;
}

static size_t sums_bytes(const struct plan *plan)
{
    return plan->form->places * plan->sum_pitch * sizeof(float);
}

static void place_plan(struct plan *plan, void *scratch)
{
    plan->sums = scratch;
    plan->in_panels = (uint32_t *)(plan->sums + plan->form->places * plan->sum_pitch);
    plan->out_panels = plan->in_panels + plan->round_chunks * plan->form->places * plan->in_pitch;
}

bool cpu_winograd_weights_pays(const struct cpu_device *device, const struct op_desc *desc)
{
    return choose_form(device) != NULL && desc->kernel == 3 && desc->stride == 1 &&
           desc->pad_top == 1 && desc->pad_left == 1 && desc->pad_bottom == 1 &&
           desc->pad_right == 1 && desc->in.c % WINOGRAD_BLOCK == 0 &&
           desc->out.c % WINOGRAD_BLOCK == 0;
}

size_t cpu_winograd_weights_scratch(const struct cpu_device *device, const struct op_desc *desc)
{
    struct plan plan = make_plan(choose_form(device), desc);
    return cpu_aligned(sums_bytes(&plan) + round_bytes(&plan));
}

static size_t tiles_of_chunk(const struct plan *plan, size_t chunk)
{
    size_t left = plan->tiles - chunk * plan->chunk_tiles;
    return left < plan->chunk_tiles ? left : plan->chunk_tiles;
}

// The panels of one block of channels, first those of x, then those of dy, in one chunk.
static void transform_block(const struct plan *plan, const struct op_desc *desc, const void *x,
                            const void *dy, size_t block, size_t chunk, size_t slot, bool half)
{
    bool image = block < plan->in_blocks;
    size_t index = image ? block : block - plan->in_blocks;
    size_t blocks = image ? plan->in_blocks : plan->out_blocks;
    size_t values = (size_t)desc->in.h * desc->in.w * WINOGRAD_BLOCK;
    struct winograd_walk walk = {
        .plane = (const char *)(image ? x : dy) + index * values * cpu_value_bytes(half),
        .image_pitch = blocks * values,
        .h = desc->in.h,
        .w = desc->in.w,
        .high = plan->high,
        .wide = plan->wide,
        .first = chunk * plan->chunk_tiles,
        .count = tiles_of_chunk(plan, chunk),
    };
    size_t pitch = image ? plan->in_pitch : plan->out_pitch;
    uint32_t *to = (image ? plan->in_panels : plan->out_panels) +
                   slot * plan->form->places * pitch + index * plan->panel;
    (image ? plan->form->transform_image : plan->form->transform_gradient)(to, pitch, &walk);
}

// The products of a place with up to four blocks of output channels, over the chunks of a round.
static void multiply_place(const struct plan *plan, size_t place, size_t out_block,
                           size_t first_chunk, size_t count)
{
    size_t left = plan->out_blocks - out_block;
    struct winograd_product product = {
        .pitch = plan->out_blocks * WINOGRAD_BLOCK,
        .panel = plan->panel,
        .vectors = left < WINOGRAD_VECTORS ? (unsigned)left : WINOGRAD_VECTORS,
    };
    float *sums = plan->sums + place * plan->sum_pitch + out_block * WINOGRAD_BLOCK;
    for (size_t slot = 0; slot < count; slot++) {
        size_t at = slot * plan->form->places + place;
        product.steps =
            divided_up(tiles_of_chunk(plan, first_chunk + slot), plan->form->step_tiles);
        product.add = first_chunk + slot > 0;
        product.b = plan->out_panels + at * plan->out_pitch + out_block * plan->panel;
        for (size_t block = 0; block < plan->in_blocks; block++) {
            product.sums = sums + block * WINOGRAD_BLOCK * product.pitch;
            product.a = plan->in_panels + at * plan->in_pitch + block * plan->panel;
            plan->form->multiply(&product);
        }
    }
}

// By all threads of a parallel region.
static void run_round(const struct plan *plan, const struct op_desc *desc, const void *x,
                      const void *dy, size_t first_chunk, bool half)
{
    size_t left = plan->chunks - first_chunk;
    size_t count = left < plan->round_chunks ? left : plan->round_chunks;
    size_t blocks = plan->in_blocks + plan->out_blocks;
    size_t parts = divided_up(plan->out_blocks, WINOGRAD_VECTORS);
#pragma omp for schedule(static)
    for (size_t unit = 0; unit < count * blocks; unit++) {
        transform_block(plan, desc, x, dy, unit % blocks, first_chunk + unit / blocks,
                        unit / blocks, half);
    }
#pragma omp for schedule(static)
    for (size_t unit = 0; unit < plan->form->places * parts; unit++) {
        multiply_place(plan, unit / parts, unit % parts * WINOGRAD_VECTORS, first_chunk, count);
    }
}

void cpu_winograd_backward_weights(const struct cpu_device *device, const struct op_desc *desc,
                                   float *gradient, const void *x, const void *dy, void *scratch)
{
    struct plan plan = make_plan(choose_form(device), desc);
    place_plan(&plan, scratch);
    size_t in = desc->in.c, out = desc->out.c;
#pragma omp parallel num_threads(device->threads)
    {
        for (size_t chunk = 0; chunk < plan.chunks; chunk += plan.round_chunks) {
            run_round(&plan, desc, x, dy, chunk, device->half);
        }
#pragma omp for schedule(static)
        for (size_t i = 0; i < in; i++) {
            plan.form->finish(gradient + i * out, in * out, plan.sums + i * out, plan.sum_pitch,
                              out);
        }
    }
}
