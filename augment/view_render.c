// Rendering a view, fast: row by row, so that what passes from one operation to the next stays in
// the caches. There is one pass over the image, and one more for each contrast, which needs the
// means of all that comes before it:
//
//   first pass   resize -> colour steps -> image, sums of the channels
//   next pass    image -> contrast, colour steps -> image, sums …
//   last pass    … -> blur through a ring of rows -> solarize, clip, normalise -> out
#include "augment/kernels.h"
#include "augment/rows.h"
#include "augment/view.h"
#include "augment/view_scratch.h"
#include "formats/limits.h"

#include <math.h>
#include <string.h>

const struct view_output view_output_plain = {.deviation = {1, 1, 1}};
const struct view_output view_output_imagenet = {.mean = {0.485f, 0.456f, 0.406f},
                                                 .deviation = {0.229f, 0.224f, 0.225f}};

enum status view_check(const struct view_params *params, uint32_t width, uint32_t height,
                       uint32_t max_size, struct error *error)
{
    const char *reason = NULL;
    if (params->size < 1 || params->size > max_size) {
        reason = "the view's size is larger than the scratch was opened for, or zero";
    } else if (width != params->crop.width || height != params->crop.height) {
        reason = "the decoded crop has another size than the parameters say";
    } else if (width < 1 || height < 1 || width > LIMIT_IMAGE_SIDE) {
        reason = "the crop is empty or too wide";
    } else if (params->blur && (params->taps % 2 == 0 || params->taps > 2 * params->size - 1)) {
        reason = "the blur's taps must be odd and less than twice the size";
    } else if (params->blur && !(params->sigma > 0)) {
        reason = "the blur's sigma must be positive";
    }
    return reason ? error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "%s", reason)
                  : STATUS_OK;
}

// From this size on, views go to memory past the caches: a batch of them does not fit there.
#define STREAM_SIZE 128

#define PIXELS_AT_ONCE 1024 // of short rows
#define MAX_STEPS      8    // 4 of the jitter, grayscale
#define MAX_PASSES     5

struct pass {
    struct row_step steps[MAX_STEPS];
    uint32_t count;
};

// Everything that stays the same from row to row.
struct render {
    const struct resize_kernels *resize;
    const struct color_kernels *color;
    const struct blur_kernels *blur;
    const struct store_kernels *store;
    struct view_scratch *scratch;
    const struct image_planes *crop;
    bool resized;                      // the crop's planes hold floats that need no resize
    uint32_t size, planes, planes_out; // planes before and after the colour steps of the last pass
    bool flip, blurs;
    struct pass passes[MAX_PASSES];
    uint32_t pass_count;
    const float *weights;     // the blur's, without those too small to matter
    size_t radius, ring_mask; // of the row number: the place in the ring
    uint32_t next;            // row to be written
    enum view_layout layout;
    struct row_finish finish;
    float *out;
};

// --- the plan -----------------------------------------------------------------------------------

static void add_step(struct render *render, struct row_step step)
{
    render->pass_count += step.op == ROW_CONTRAST; // starts a pass
    struct pass *pass = &render->passes[render->pass_count - 1];
    struct row_step *last = pass->count > 0 ? &pass->steps[pass->count - 1] : NULL;
    if (last != NULL && step.op == ROW_HSV && last->op == ROW_HSV) {
        last->amount *= step.amount; // saturation and hue next to each other are one step
        last->turn += step.turn;
        last->turn -= rintf(last->turn);
    } else {
        pass->steps[pass->count++] = step;
    }
}

static void add_operation(struct render *render, enum view_op op, const struct view_params *params)
{
    switch (op) {
    case VIEW_BRIGHTNESS:
        add_step(render, (struct row_step){.op = ROW_BRIGHTNESS, .amount = params->brightness});
        break;
    case VIEW_CONTRAST:
        add_step(render, (struct row_step){.op = ROW_CONTRAST, .amount = params->contrast});
        break;
    case VIEW_SATURATION:
        add_step(render, (struct row_step){.op = ROW_HSV, .amount = fmaxf(params->saturation, 0)});
        break;
    case VIEW_HUE:
        add_step(render, (struct row_step){
                             .op = ROW_HSV, .amount = 1, .turn = params->hue - rintf(params->hue)});
        break;
    }
}

static void plan_colors(struct render *render, const struct view_params *params)
{
    render->pass_count = 1;
    for (size_t i = 0; params->jitter && i < 4; i++) {
        add_operation(render, (enum view_op)params->order[i], params);
    }
    if (params->grayscale) {
        add_step(render, (struct row_step){.op = ROW_GRAYSCALE});
    }
    render->planes_out = params->grayscale ? 1 : render->planes;
}

// Weights below 2^-24 of the largest change no pixel by more than rounding does.
static void plan_blur(struct render *render, const struct view_params *params)
{
    float *weights = render->scratch->weights;
    blur_weights_fill(weights, params->taps, params->sigma);
    size_t centre = params->taps / 2, radius = centre;
    while (radius > 0 && weights[centre - radius] < weights[centre] * 0x1p-24f) {
        radius--;
    }
    render->weights = weights + centre - radius;
    render->radius = radius;
    render->ring_mask = 1;
    while (render->ring_mask < 2 * radius + BLUR_ROWS - 1 && render->ring_mask < params->size - 1) {
        render->ring_mask = render->ring_mask * 2 + 1;
    }
    for (size_t plane = 0; plane < 3; plane++) {
        float *row = render->scratch->padded[plane];
        memset(row - radius, 0, radius * sizeof *row);
        memset(row + params->size, 0, (radius + ROW_LANES) * sizeof *row);
    }
}

static void plan_finish(struct render *render, const struct view_params *params,
                        const struct view_output *output, float *out)
{
    render->finish.stream = params->size >= STREAM_SIZE;
    render->layout = output->layout;
    render->out = out;
    render->finish.threshold = params->solarize ? params->threshold : INFINITY;
    for (size_t channel = 0; channel < 3; channel++) {
        render->finish.mean[channel] = output->mean[channel];
        render->finish.factor[channel] = 1.0f / output->deviation[channel];
    }
}

static void plan_resize(struct render *render)
{
    struct view_scratch *scratch = render->scratch;
    uint32_t padded = (render->size + ROW_LANES - 1) / ROW_LANES * ROW_LANES;
    resize_plan_rows(scratch->rows, render->crop->height, render->size, scratch->table);
    resize_plan_columns(&scratch->columns, padded, render->crop->width, render->size, render->flip,
                        scratch->table);
}

static uint32_t planes_of(const struct image_planes *crop)
{
    return crop->plane[0] == crop->plane[1] && crop->plane[0] == crop->plane[2] ? 1 : 3;
}

static void plan(struct render *render, const struct view_params *params,
                 const struct view_output *output, float *out)
{
    enum isa isa = isa_chosen();
    render->resize = ISA_SELECT(resize_kernels, isa);
    render->color = ISA_SELECT(color_kernels, isa);
    render->blur = ISA_SELECT(blur_kernels, isa);
    render->store = ISA_SELECT(store_kernels, isa);
    render->size = params->size;
    render->flip = params->flip;
    render->blurs = params->blur;
    render->planes = planes_of(render->crop);
    if (!render->resized) {
        plan_resize(render);
    }
    plan_colors(render, params);
    plan_finish(render, params, output, out);
    if (params->blur) {
        plan_blur(render, params);
    }
}

// --- the last pass ------------------------------------------------------------------------------

// Writes the next `count` rows, between which there is no gap.
static void write_rows(struct render *render, float *const rows[3], uint32_t count)
{
    const float *const in[3] = {rows[0], rows[1], rows[2]};
    size_t size = render->size, area = size * size, at = render->next * size;
    float *out = render->out;
    if (render->layout == VIEW_HWC) {
        render->store->interleaved(out + at * 3, in, render->planes_out, size * count,
                                   &render->finish);
    } else {
        float *const planes[3] = {out + at, out + area + at, out + 2 * area + at};
        render->store->planar(planes, in, render->planes_out, size * count, &render->finish);
    }
    render->next += count;
}

static float *ring_row(const struct render *render, size_t plane, size_t row)
{
    return render->scratch->ring[plane] + (row & render->ring_mask) * render->scratch->stride;
}

// Writes the next rows, as many as are ready: a plane at a time, so that the rows that its sums
// share stay in the nearest cache.
static void blur_down(struct render *render)
{
    struct view_scratch *scratch = render->scratch;
    uint32_t left = render->size - render->next;
    uint32_t count = left < BLUR_ROWS ? left : BLUR_ROWS;
    for (size_t plane = 0; plane < render->planes_out; plane++) {
        for (size_t i = 0; i < 2 * render->radius + BLUR_ROWS; i++) {
            int64_t row = (int64_t)render->next + (int64_t)i - (int64_t)render->radius;
            bool inside = row >= 0 && row < render->size;
            scratch->window[i] = inside ? ring_row(render, plane, (size_t)row) : scratch->zeros;
        }
        for (size_t i = 0; i < count; i += 2) {
            float *const out[2] = {scratch->result[i][plane], scratch->result[i + 1][plane]};
            render->blur->vertical(out, scratch->window + i, render->size, render->weights,
                                   render->radius);
        }
    }
    for (size_t i = 0; i < count; i++) {
        write_rows(render, scratch->result[i], 1);
    }
}

// Takes the coloured row `y` in `scratch->padded`.
static void blur_row(struct render *render, uint32_t y)
{
    struct view_scratch *scratch = render->scratch;
    size_t size = render->size, rounding = (ROW_LANES - size % ROW_LANES) % ROW_LANES;
    for (size_t plane = 0; plane < render->planes_out; plane++) {
        memset(scratch->padded[plane] + size, 0, rounding * sizeof(float));
        render->blur->horizontal(ring_row(render, plane, y), scratch->padded[plane], size,
                                 render->weights, render->radius);
    }
    while (render->next < size &&
           (y + 1 == size || render->next + BLUR_ROWS - 1 + render->radius <= y)) {
        blur_down(render);
    }
}

// --- passes -------------------------------------------------------------------------------------

static void resize_row(struct render *render, uint32_t y, float *const out[3])
{
    struct view_scratch *scratch = render->scratch;
    const struct image_planes *crop = render->crop;
    const struct resize_taps *taps = &scratch->rows[y];
    for (size_t plane = 0; plane < render->planes; plane++) {
        const uint8_t *rows[4];
        for (size_t tap = 0; tap < 4; tap++) {
            rows[tap] = crop->plane[plane] + taps->index[tap] * crop->stride;
        }
        render->resize->vertical(scratch->line[plane], rows, taps->weight, crop->width);
    }
    const float *const lines[3] = {scratch->line[0], scratch->line[1], scratch->line[2]};
    render->resize->horizontal(out, lines, render->planes, &scratch->columns);
}

// The same for pixels that are there already.
static void copy_row(const struct render *render, uint32_t y, float *const out[3])
{
    const struct image_planes *crop = render->crop;
    for (size_t plane = 0; plane < render->planes; plane++) {
        const uint8_t *row = crop->plane[plane] + y * crop->stride;
        for (size_t x = 0; x < render->size; x++) {
            size_t from = render->flip ? render->size - 1 - x : x;
            memcpy(&out[plane][x], row + from * sizeof(float), sizeof(float));
        }
    }
}

static void bring_row(struct render *render, uint32_t y, float *const out[3])
{
    if (render->resized) {
        copy_row(render, y, out);
    } else {
        resize_row(render, y, out);
    }
}

// How many rows go through the colour steps, and to the output, at once. More than one of short
// rows, which are hardly worth a call each; there must be no gap between them.
static uint32_t rows_at_once(const struct render *render, bool blurs)
{
    bool gapless = render->scratch->stride == render->size;
    return gapless && !blurs && render->size <= PIXELS_AT_ONCE / 2 ? PIXELS_AT_ONCE / render->size
                                                                   : 1;
}

static void run_pass(struct render *render, uint32_t number, struct row_sums *sums)
{
    struct view_scratch *scratch = render->scratch;
    const struct pass *pass = &render->passes[number];
    bool last = number + 1 == render->pass_count, blurs = last && render->blurs;
    uint32_t most = rows_at_once(render, blurs), count;
    for (uint32_t y = 0; y < render->size; y += count) {
        count = render->size - y < most ? render->size - y : most;
        size_t at = y * scratch->stride;
        float *const image[3] = {scratch->image[0] + at, scratch->image[1] + at,
                                 scratch->image[2] + at};
        float *const *out = last && most == 1 ? scratch->padded : image;
        float *const *in = number == 0 ? out : image;
        for (uint32_t i = 0; number == 0 && i < count; i++) {
            size_t row = i * scratch->stride;
            bring_row(render, y + i, (float *[3]){out[0] + row, out[1] + row, out[2] + row});
        }
        const float *const from[3] = {in[0], in[1], in[2]};
        if (pass->count > 0 || in != out || !last) {
            render->color->apply(out, from, render->planes, (size_t)render->size * count,
                                 pass->steps, pass->count, last ? NULL : sums);
        }
        if (blurs) {
            blur_row(render, y);
        } else if (last) {
            write_rows(render, out, count);
        }
    }
}

static void set_means(const struct render *render, struct row_step *contrast,
                      const struct row_sums *sums)
{
    double area = (double)render->size * (double)render->size;
    for (size_t channel = 0; channel < 3; channel++) {
        const uint64_t *lanes = sums->lane[render->planes == 3 ? channel : 0];
        uint64_t sum = 0;
        for (size_t lane = 0; lane < ROW_LANES; lane++) {
            sum += lanes[lane];
        }
        contrast->mean[channel] = (float)((double)sum * 0x1p-30 / area);
    }
}

static enum status run(struct render *render, const struct view_params *params,
                       const struct view_output *output, float *out, struct error *error)
{
    enum status status = view_check(params, render->crop->width, render->crop->height,
                                    render->scratch->max_size, error);
    if (status != STATUS_OK) {
        return status;
    }
    plan(render, params, output, out);
    for (uint32_t i = 0; i < render->pass_count; i++) {
        struct row_sums sums = {0};
        run_pass(render, i, &sums);
        if (i + 1 < render->pass_count) {
            set_means(render, &render->passes[i + 1].steps[0], &sums);
        }
    }
    render->store->settle();
    return STATUS_OK;
}

enum status view_render(const struct view_params *params, const struct image_planes *crop,
                        const struct view_output *output, struct view_scratch *scratch, float *out,
                        struct error *error)
{
    struct render render = {.scratch = scratch, .crop = crop};
    return run(&render, params, output, out, error);
}

enum status view_render_resized(const struct view_params *params, float *const planes[3],
                                const struct view_output *output, struct view_scratch *scratch,
                                float *out, struct error *error)
{
    struct view_params whole = *params;
    whole.crop = (struct image_window){.width = params->size, .height = params->size};
    struct image_planes crop = {
        .plane = {(uint8_t *)planes[0], (uint8_t *)planes[1], (uint8_t *)planes[2]},
        .width = params->size,
        .height = params->size,
        .stride = params->size * sizeof(float)};
    struct render render = {.scratch = scratch, .crop = &crop, .resized = true};
    return run(&render, &whole, output, out, error);
}

enum status view_render_bytes(const struct view_params *params, const struct image_planes *crop,
                              struct view_scratch *scratch, uint8_t *out, struct error *error)
{
    enum status status = view_check(params, crop->width, crop->height, scratch->max_size, error);
    if (status != STATUS_OK) {
        return status;
    }
    enum isa isa = isa_chosen();
    struct render render = {.resize = ISA_SELECT(resize_kernels, isa),
                            .store = ISA_SELECT(store_kernels, isa),
                            .scratch = scratch,
                            .crop = crop,
                            .size = params->size,
                            .planes = planes_of(crop)};
    plan_resize(&render);
    const float *const row[3] = {scratch->padded[0], scratch->padded[1], scratch->padded[2]};
    for (uint32_t y = 0; y < params->size; y++) {
        resize_row(&render, y, scratch->padded);
        render.store->bytes(out + (size_t)y * params->size * 3, row, render.planes, params->size);
    }
    return STATUS_OK;
}
