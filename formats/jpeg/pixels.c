// Row by row of MCUs: coefficients, samples at once, then the pixel rows whose neighbours are
// there. Samples of two MCU rows are kept, in a ring, because upsampling looks one row up and down.
#include "formats/jpeg/pixels.h"
#include "formats/image_codec.h"
#include "formats/jpeg/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64

struct component {
    uint32_t h, v;             // blocks of an MCU
    uint32_t x_ratio, y_ratio; // pixels per sample
    uint32_t width, height;    // samples of the whole image
    int16_t *blocks;           // of one MCU row
    uint8_t *samples;          // of two MCU rows: row y at (y % ring) * stride
    uint32_t ring;
    size_t stride;
    uint8_t *line; // one upsampled row
    _Alignas(ALIGN) int16_t multipliers[JPEG_BLOCK];
};

// A window and how far it is.
struct view {
    struct image_planes *out;
    struct image_window window;
    uint32_t left;               // pixel column that libjpeg-turbo would start at
    uint32_t first_col, end_col; // MCUs
    uint32_t first_row, end_row;
    uint32_t next;       // pixel row of the image
    uint32_t columns[3]; // samples from `left` to the window's end
    bool fancy[3];       // upsampling
};

struct jpeg_pixels {
    uint32_t scale[JPEG_BLOCK]; // of the multipliers, 14 fractional bits
    uint8_t *memory;            // of blocks, samples and lines
    size_t capacity;

    // The image in progress.
    const struct jpeg_kernels *kernels;
    const struct jpeg_frame *frame;
    bool context;                // upsampling needs sample rows above and below
    uint32_t first_col, end_col; // MCUs that any window needs
    uint32_t views;
    struct view view[IMAGE_MAX_WINDOWS];
    struct component component[3];
};

// --- life ----------------------------------------------------------------------------------------

// The method leaves out the first scaling of its rows and columns; the multipliers contain it.
static void fill_scale(uint32_t scale[JPEG_BLOCK])
{
    for (int i = 0; i < JPEG_BLOCK; i++) {
        int y = i / 8, x = i % 8;
        double vertical = y == 0 ? 1 : cos(y * M_PI / 16) * M_SQRT2;
        double horizontal = x == 0 ? 1 : cos(x * M_PI / 16) * M_SQRT2;
        scale[i] = (uint32_t)(vertical * horizontal * (1 << 14) + 0.5);
    }
}

enum status jpeg_pixels_open(struct jpeg_pixels **out, struct error *error)
{
    *out = aligned_alloc(ALIGN, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a JPEG decoder");
    }
    memset(*out, 0, sizeof **out);
    fill_scale((*out)->scale);
    return STATUS_OK;
}

void jpeg_pixels_close(struct jpeg_pixels **pixels)
{
    if (*pixels != NULL) {
        free((*pixels)->memory);
        free(*pixels);
        *pixels = NULL;
    }
}

size_t jpeg_pixels_memory(const struct jpeg_pixels *pixels)
{
    return sizeof *pixels + pixels->capacity;
}

// --- planning ------------------------------------------------------------------------------------

static uint32_t divide_up(uint64_t a, uint32_t b)
{
    return (uint32_t)((a + b - 1) / b);
}

static size_t round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static bool takes_factor(uint32_t factor, uint32_t max)
{
    return factor >= 1 && (factor == max || factor * 2 == max);
}

bool jpeg_pixels_takes(const struct jpeg_frame *frame)
{
    if ((frame->components != 1 && frame->components != 3) || frame->width == 0 ||
        frame->height == 0 || frame->h_max < 1 || frame->h_max > 4 || frame->v_max < 1 ||
        frame->v_max > 4 || frame->mcus_wide != divide_up(frame->width, 8 * frame->h_max) ||
        frame->mcus_high != divide_up(frame->height, 8 * frame->v_max)) {
        return false;
    }
    for (uint32_t c = 0; c < frame->components; c++) {
        if (!takes_factor(frame->component[c].h, frame->h_max) ||
            !takes_factor(frame->component[c].v, frame->v_max)) {
            return false;
        }
    }
    return true;
}

static void plan_component(struct jpeg_pixels *pixels, uint32_t c)
{
    const struct jpeg_frame *frame = pixels->frame;
    const struct jpeg_component *from = &frame->component[c];
    struct component *to = &pixels->component[c];
    to->h = from->h;
    to->v = from->v;
    to->x_ratio = frame->h_max / from->h;
    to->y_ratio = frame->v_max / from->v;
    to->width = divide_up(frame->width, to->x_ratio);
    to->height = divide_up(frame->height, to->y_ratio);
    to->ring = 2 * 8 * to->v;
    for (int i = 0; i < JPEG_BLOCK; i++) {
        // Two fractional bits remain; 16-bit tables may wrap, as libjpeg-turbo's do.
        to->multipliers[i] = (int16_t)((from->quant[i] * pixels->scale[i] + (1 << 11)) >> 12);
    }
}

// Rows that only repeat have no use for neighbours, and neither have columns.
static bool is_fancy(const struct component *component, uint32_t columns)
{
    return component->x_ratio == 1 || columns > 2;
}

static void plan_components(struct jpeg_pixels *pixels)
{
    pixels->context = false;
    for (uint32_t c = 0; c < pixels->frame->components; c++) {
        const struct component *component = &pixels->component[c];
        plan_component(pixels, c);
        if (component->y_ratio == 2 && is_fancy(component, component->width)) {
            pixels->context = true;
        }
    }
}

// How the components are upsampled. libjpeg-turbo chooses by the image's width, and again by the
// window's only where that leaves one column of a component that had more.
static void plan_upsampling(const struct jpeg_pixels *pixels, struct view *view)
{
    const struct jpeg_frame *frame = pixels->frame;
    uint32_t width = view->window.x + view->window.width - view->left;
    bool again = false;
    for (uint32_t c = 0; c < frame->components; c++) {
        const struct component *component = &pixels->component[c];
        view->columns[c] = divide_up(width, component->x_ratio);
        again = again || (view->columns[c] < 2 && component->width >= 2);
    }
    for (uint32_t c = 0; c < frame->components; c++) {
        const struct component *component = &pixels->component[c];
        view->fancy[c] = is_fancy(component, again ? view->columns[c] : component->width);
    }
}

// The MCU rows that libjpeg-turbo would read: with neighbours, also the row above unless it starts
// with the first one, and the row below as soon as the last of the rows that it upsamples together
// (one, or two that share their samples) is wanted. Damage there must not go unnoticed.
static void plan_rows(const struct jpeg_pixels *pixels, struct view *view)
{
    const struct jpeg_frame *frame = pixels->frame;
    uint32_t mcu_height = 8 * frame->v_max;
    uint32_t top = view->window.y, bottom = view->window.y + view->window.height;
    if (pixels->context) {
        top -= top > 0;
        bottom = divide_up(bottom, frame->v_max) * frame->v_max + 1;
        bottom = bottom < frame->height ? bottom : frame->height;
    }
    view->first_row = top / mcu_height;
    view->end_row = divide_up(bottom, mcu_height);
    view->next = view->window.y;
}

static void plan_view(const struct jpeg_pixels *pixels, struct view *view)
{
    const struct jpeg_frame *frame = pixels->frame;
    const struct image_window *window = &view->window;
    uint32_t mcu_width = 8 * frame->h_max;
    view->first_col = window->x / mcu_width;
    view->left = view->first_col * mcu_width;
    view->end_col = divide_up(window->x + window->width, mcu_width);
    plan_upsampling(pixels, view);
    plan_rows(pixels, view);
}

static enum status plan_views(struct jpeg_pixels *pixels, const struct image_window *windows,
                              uint32_t count, struct image_planes *out, struct error *error)
{
    const struct jpeg_frame *frame = pixels->frame;
    pixels->views = count;
    pixels->first_col = frame->mcus_wide;
    pixels->end_col = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct view *view = &pixels->view[i];
        enum status status =
            image_check_window(&view->window, &windows[i], frame->width, frame->height, error);
        if (status == STATUS_OK) {
            status = image_planes_reserve(&out[i], windows[i].width, windows[i].height, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
        if (frame->components == 1) {
            out[i].plane[1] = out[i].plane[2] = out[i].plane[0];
        }
        view->out = &out[i];
        plan_view(pixels, view);
        if (view->first_col < pixels->first_col) {
            pixels->first_col = view->first_col;
        }
        if (view->end_col > pixels->end_col) {
            pixels->end_col = view->end_col;
        }
    }
    return STATUS_OK;
}

// Hands out parts of the memory, or adds up what they need while there is none.
static void *part(uint8_t *memory, size_t *used, size_t len)
{
    void *start = memory ? memory + *used : NULL;
    *used += round_up(len, ALIGN);
    return start;
}

static size_t divide_memory(struct jpeg_pixels *pixels, uint8_t *memory)
{
    size_t used = 0;
    for (uint32_t c = 0; c < pixels->frame->components; c++) {
        struct component *component = &pixels->component[c];
        size_t row_blocks = (size_t)pixels->frame->mcus_wide * component->h;
        size_t span = (size_t)(pixels->end_col - pixels->first_col) * component->h * 8;
        component->stride = round_up(span + JPEG_BLOCKS_BEYOND * 8, ALIGN);
        size_t blocks = row_blocks * component->v + JPEG_BLOCKS_BEYOND;
        component->blocks = part(memory, &used, blocks * JPEG_BLOCK * sizeof(int16_t));
        part(memory, &used, JPEG_READ_BEFORE);
        component->samples = part(memory, &used, component->ring * component->stride);
        part(memory, &used, JPEG_READ_BEYOND);
        component->line = part(memory, &used, span * component->x_ratio + JPEG_WRITE_BEYOND);
    }
    return used;
}

static enum status grow(struct jpeg_pixels *pixels, size_t needed, uint32_t width,
                        struct error *error)
{
    if (needed <= pixels->capacity) {
        return STATUS_OK;
    }
    free(pixels->memory);
    pixels->memory = aligned_alloc(ALIGN, needed);
    pixels->capacity = pixels->memory ? needed : 0;
    if (pixels->memory == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a row of an image of %u pixels' width", width);
    }
    memset(pixels->memory, 0, needed); // what lies between rows is read, if not used
    return STATUS_OK;
}

static enum status reserve_memory(struct jpeg_pixels *pixels, struct error *error)
{
    enum status status = grow(pixels, divide_memory(pixels, NULL), pixels->frame->width, error);
    if (status == STATUS_OK) {
        divide_memory(pixels, pixels->memory);
    }
    return status;
}

// The frame that needs most: three components of full resolution, with the largest MCUs.
enum status jpeg_pixels_reserve(struct jpeg_pixels *pixels, uint32_t width, struct error *error)
{
    struct jpeg_frame frame = {.width = width, .height = 1, .components = 3};
    frame.h_max = frame.v_max = 4;
    frame.mcus_wide = divide_up(width, 8 * frame.h_max);
    pixels->frame = &frame;
    pixels->first_col = 0;
    pixels->end_col = frame.mcus_wide;
    for (uint32_t c = 0; c < frame.components; c++) {
        frame.component[c].h = frame.component[c].v = 4;
        plan_component(pixels, c);
    }
    size_t needed = divide_memory(pixels, NULL);
    pixels->frame = NULL;
    return grow(pixels, needed, width, error);
}

// --- pixels --------------------------------------------------------------------------------------

static const uint8_t *sample_row(const struct jpeg_pixels *pixels, const struct view *view,
                                 uint32_t c, uint32_t y)
{
    const struct component *component = &pixels->component[c];
    size_t column = (size_t)(view->first_col - pixels->first_col) * component->h * 8;
    return component->samples + (y % component->ring) * component->stride + column;
}

static void repeat(const uint8_t *row, size_t count, uint8_t *out)
{
    for (size_t i = 0; i < count; i++) {
        out[2 * i] = out[2 * i + 1] = row[i];
    }
}

// One component of pixel row `y`, from the window's first column, with a sample for each pixel.
static const uint8_t *upsample(const struct jpeg_pixels *pixels, const struct view *view,
                               uint32_t c, uint32_t y)
{
    const struct component *component = &pixels->component[c];
    const struct jpeg_kernels *kernels = pixels->kernels;
    uint32_t near_y = y / component->y_ratio, skip = view->window.x - view->left;
    const uint8_t *near = sample_row(pixels, view, c, near_y), *far = near;
    size_t columns = view->columns[c];
    if (component->x_ratio == 1 && component->y_ratio == 1) {
        return near + skip;
    }
    bool above = y % 2 == 0;
    if (component->y_ratio == 2 && view->fancy[c] &&
        (above ? near_y > 0 : near_y + 1 < component->height)) {
        far = sample_row(pixels, view, c, above ? near_y - 1 : near_y + 1);
    }
    if (!view->fancy[c]) {
        repeat(near, columns, component->line);
    } else if (component->y_ratio == 1) {
        kernels->double_width(near, columns, component->line);
    } else if (component->x_ratio == 1) {
        kernels->double_height(near, far, above ? 1 : 2, columns, component->line);
    } else {
        kernels->double_both(near, far, columns, component->line);
    }
    return component->line + skip;
}

static void finish_row(const struct jpeg_pixels *pixels, const struct view *view, uint32_t y)
{
    const uint8_t *from[3];
    uint8_t *to[3];
    uint32_t components = pixels->frame->components;
    for (uint32_t c = 0; c < components; c++) {
        from[c] = upsample(pixels, view, c, y);
        to[c] = view->out->plane[c] + (y - view->window.y) * view->out->stride;
    }
    if (components == 3 && !pixels->frame->rgb) {
        pixels->kernels->convert(from, view->window.width, to);
        return;
    }
    for (uint32_t c = 0; c < components; c++) {
        memcpy(to[c], from[c], view->window.width);
    }
}

// The window's pixel rows that can be finished when MCU row `row` is there.
static void finish_rows(const struct jpeg_pixels *pixels, struct view *view, uint32_t row)
{
    uint32_t end = view->window.y + view->window.height;
    if (row + 1 < pixels->frame->mcus_high) {
        uint32_t ready = (row + 1) * 8 * pixels->frame->v_max - pixels->context;
        end = ready < end ? ready : end;
    }
    for (; view->next < end; view->next++) {
        finish_row(pixels, view, view->next);
    }
}

static void transform(const struct jpeg_pixels *pixels, uint32_t row, uint32_t first, uint32_t end)
{
    for (uint32_t c = 0; c < pixels->frame->components; c++) {
        const struct component *component = &pixels->component[c];
        size_t row_blocks = (size_t)pixels->frame->mcus_wide * component->h;
        size_t column = (size_t)(first - pixels->first_col) * component->h * 8;
        for (uint32_t y = 0; y < component->v; y++) {
            size_t ring_row = (row * component->v + y) * 8 % component->ring;
            pixels->kernels->transform(
                component->blocks + (y * row_blocks + (size_t)first * component->h) * JPEG_BLOCK,
                (size_t)(end - first) * component->h, component->multipliers,
                component->samples + ring_row * component->stride + column, component->stride);
        }
    }
}

static enum status decode_row(struct jpeg_pixels *pixels, struct jpeg_source *source, uint32_t row,
                              struct error *error)
{
    uint32_t first = pixels->end_col, end = 0;
    for (uint32_t i = 0; i < pixels->views; i++) {
        const struct view *view = &pixels->view[i];
        if (row >= view->first_row && row < view->end_row) {
            first = view->first_col < first ? view->first_col : first;
            end = view->end_col > end ? view->end_col : end;
        }
    }
    if (end == 0) {
        return STATUS_OK; // between windows
    }
    int16_t *const blocks[3] = {pixels->component[0].blocks, pixels->component[1].blocks,
                                pixels->component[2].blocks};
    enum status status = source->row(source, row, first, end, blocks, error);
    if (status != STATUS_OK) {
        return status;
    }
    transform(pixels, row, first, end);
    for (uint32_t i = 0; i < pixels->views; i++) {
        struct view *view = &pixels->view[i];
        if (row >= view->first_row && row < view->end_row) {
            finish_rows(pixels, view, row);
        }
    }
    return STATUS_OK;
}

enum status jpeg_pixels_decode(struct jpeg_pixels *pixels, const struct jpeg_frame *frame,
                               struct jpeg_source *source, const struct image_window *windows,
                               uint32_t count, struct image_planes *out, struct error *error)
{
    if (!jpeg_pixels_takes(frame)) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "JPEG: not a kind of sampling that the fast road knows");
    }
    if (count > IMAGE_MAX_WINDOWS) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "%u windows of one image are more than %d", count, IMAGE_MAX_WINDOWS);
    }
    pixels->frame = frame;
    pixels->kernels = ISA_SELECT(jpeg_kernels, isa_chosen());
    plan_components(pixels);
    enum status status = plan_views(pixels, windows, count, out, error);
    if (status == STATUS_OK) {
        status = reserve_memory(pixels, error);
    }
    uint32_t first_row = frame->mcus_high, end_row = 0;
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        const struct view *view = &pixels->view[i];
        first_row = view->first_row < first_row ? view->first_row : first_row;
        end_row = view->end_row > end_row ? view->end_row : end_row;
    }
    for (uint32_t row = first_row; row < end_row && status == STATUS_OK; row++) {
        status = decode_row(pixels, source, row, error);
    }
    return status;
}
