// Layout and drawing of a contact sheet.
//
//   margin | original | gap | view 1 view 2 | gap | view 1 view 2 | ... | margin
//            name       captions, up to CAPTION_LINES below each
#include "tools/sheet.h"

#include "formats/limits.h"
#include "tools/canvas.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MARGIN = 40,
    PAIR_GAP = 36, // between the views of different epochs
    VIEW_GAP = 8,  // between the views of a pair
    ROW_GAP = 34,
    STRIPE = 4, // coloured, above each view
    LEAST_TILE = 176,
    MOST_TILE = 256,
    LINE = 19, // from text line to text line
    TITLE_HEIGHT = 36,
    CAPTION_LINES = 3,
};
#define TEXT  1.6 // pixels per dot of the font
#define TITLE 3.2

static const struct canvas_color paper = {250, 249, 246}, ink = {38, 38, 43},
                                 pale = {122, 121, 118}, dark = {20, 20, 20};
// Orange and blue: apart for every kind of colour vision.
static const struct canvas_color view_colors[RECIPE_MAX_VIEWS] = {{235, 112, 20}, {24, 116, 205}};

// --- sizes ---------------------------------------------------------------------------------------

// Small views are shown enlarged by a whole factor, so that their pixels stay visible.
static uint32_t tile_side(uint32_t size)
{
    if (size > MOST_TILE) {
        return MOST_TILE;
    }
    return size * ((LEAST_TILE + size - 1) / size);
}

// Room for an original: most photographs are 4:3.
static uint32_t original_width(uint32_t size)
{
    return tile_side(size) * 4 / 3;
}

static int64_t caption_top(const struct sheet *sheet)
{
    return STRIPE + tile_side(sheet->size) + 8;
}

static int64_t row_height(const struct sheet *sheet)
{
    return caption_top(sheet) + CAPTION_LINES * LINE + ROW_GAP;
}

static int64_t head_height(const struct sheet *sheet)
{
    int64_t height = MARGIN + TITLE_HEIGHT;
    for (size_t i = 0; i < 3 && sheet->notes[i][0]; i++) {
        height += LINE;
    }
    return height + 24 + LINE; // and the line that names the columns
}

// Where a row's view stands.
static int64_t view_left(const struct sheet *sheet, const struct sheet_row *row, size_t which)
{
    int64_t x = MARGIN + original_width(sheet->size) + PAIR_GAP;
    for (size_t i = 0; i < which; i++) {
        bool pair = row->views[i].epoch == row->views[i + 1].epoch;
        x += tile_side(sheet->size) + (pair ? VIEW_GAP : PAIR_GAP);
    }
    return x;
}

static int64_t text_end(const struct sheet *sheet)
{
    int64_t end = MARGIN + canvas_text_width(sheet->title, TITLE);
    for (size_t i = 0; i < 3; i++) {
        int64_t note = MARGIN + canvas_text_width(sheet->notes[i], TEXT);
        end = note > end ? note : end;
    }
    return end;
}

static int64_t sheet_width(const struct sheet *sheet)
{
    int64_t end = text_end(sheet);
    for (size_t i = 0; i < sheet->count; i++) {
        const struct sheet_row *row = &sheet->rows[i];
        int64_t row_end = MARGIN + original_width(sheet->size);
        if (row->count > 0) {
            row_end = view_left(sheet, row, row->count - 1) + tile_side(sheet->size);
        }
        end = row_end > end ? row_end : end;
    }
    return end + MARGIN;
}

// --- captions ------------------------------------------------------------------------------------

static void __attribute__((format(printf, 3, 4)))
append(char *text, size_t capacity, const char *format, ...)
{
    size_t len = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + len, capacity - len, format, arguments);
    va_end(arguments);
}

// One word per thing that happened, the colour operations in the order applied.
static void describe(const struct view_params *params, char *text, size_t capacity)
{
    snprintf(text, capacity, "%ux%u at %u,%u", params->crop.width, params->crop.height,
             params->crop.x, params->crop.y);
    if (params->flip) {
        append(text, capacity, "  flip");
    }
    for (int i = 0; params->jitter && i < 4; i++) {
        switch ((enum view_op)params->order[i]) {
        case VIEW_BRIGHTNESS:
            append(text, capacity, "  B%+.2f", (double)params->brightness);
            break;
        case VIEW_CONTRAST:
            append(text, capacity, "  Cx%.2f", (double)params->contrast);
            break;
        case VIEW_SATURATION:
            append(text, capacity, "  Sx%.2f", (double)params->saturation);
            break;
        case VIEW_HUE:
            append(text, capacity, "  H%+.2f", (double)params->hue);
            break;
        }
    }
    if (params->grayscale) {
        append(text, capacity, "  gray");
    }
    if (params->blur) {
        append(text, capacity, "  blur %.1f", (double)params->sigma);
    }
    if (params->solarize) {
        append(text, capacity, "  solarize");
    }
}

// Breaks where two spaces stand; what does not fit into `lines` lines is left out.
static void draw_wrapped(struct image *canvas, int64_t x, int64_t y, int64_t width, int lines,
                         struct canvas_color color, const char *text)
{
    char line[256] = "";
    while (*text && lines > 0) {
        const char *end = strstr(text, "  ");
        int len = end ? (int)(end - text) : (int)strlen(text);
        char longer[sizeof line + 256];
        snprintf(longer, sizeof longer, "%s%s%.*s", line, line[0] ? "  " : "", len, text);
        if (line[0] && canvas_text_width(longer, TEXT) > width) {
            canvas_text(canvas, x, y, TEXT, color, line);
            line[0] = '\0';
            y += LINE;
            lines--;
        } else {
            snprintf(line, sizeof line, "%.255s", longer);
            text += end ? len + 2 : len;
        }
    }
    if (lines > 0) {
        canvas_text(canvas, x, y, TEXT, color, line);
    }
}

// Long names keep their end, which tells more than their beginning.
static void draw_name(struct image *canvas, int64_t x, int64_t y, int64_t width, const char *name)
{
    char shown[260];
    snprintf(shown, sizeof shown, "%s", name);
    for (size_t skip = 1; canvas_text_width(shown, TEXT) > width && skip < strlen(name); skip++) {
        snprintf(shown, sizeof shown, "...%s", name + skip);
    }
    canvas_text(canvas, x, y, TEXT, ink, shown);
}

// --- pictures ------------------------------------------------------------------------------------

enum status sheet_reduce(const struct image *original, uint32_t size, struct image *out,
                         struct error *error)
{
    double scale = fmin((double)original_width(size) / original->width,
                        (double)tile_side(size) / original->height);
    uint32_t width = (uint32_t)(original->width * scale + 0.5);
    uint32_t height = (uint32_t)(original->height * scale + 0.5);
    return canvas_resize(original, out, width < 1 ? 1 : width, height < 1 ? 1 : height, error);
}

static enum status draw_view(struct image *canvas, struct canvas_box place,
                             const struct sheet_view *view, struct error *error)
{
    uint32_t size = view->params.size;
    struct image bytes = {0}, shown = {0};
    enum status status = image_reserve(&bytes, size, size, error);
    for (size_t i = 0; status == STATUS_OK && i < (size_t)size * size * 3; i++) {
        bytes.pixels[i] = (uint8_t)(view->pixels[i] * 255.0f + 0.5f);
    }
    if (status == STATUS_OK) {
        status = canvas_resize(&bytes, &shown, tile_side(size), tile_side(size), error);
    }
    if (status == STATUS_OK) {
        struct canvas_box stripe = {place.x, place.y, place.width, STRIPE};
        canvas_fill(canvas, stripe, view_colors[view->view % RECIPE_MAX_VIEWS]);
        canvas_place(canvas, place.x, place.y + STRIPE, &shown);
    }
    image_free(&bytes);
    image_free(&shown);
    return status;
}

// The window of a view on the reduced original, with a dark rim that shows on any picture.
static void draw_window(struct image *canvas, int64_t x, int64_t y, const struct sheet_row *row,
                        const struct sheet_view *view)
{
    double scale_x = (double)row->original.width / row->width;
    double scale_y = (double)row->original.height / row->height;
    const struct image_window *crop = &view->params.crop;
    int64_t left = llround(crop->x * scale_x), right = llround((crop->x + crop->width) * scale_x);
    int64_t top = llround(crop->y * scale_y), bottom = llround((crop->y + crop->height) * scale_y);
    struct canvas_box box = {x + left, y + top, right - left, bottom - top};
    struct canvas_box inner = {box.x + 1, box.y + 1, box.width - 2, box.height - 2};
    canvas_frame(canvas, box, 4, dark);
    canvas_frame(canvas, inner, 2, view_colors[view->view % RECIPE_MAX_VIEWS]);
}

static void draw_original(struct image *canvas, int64_t y, const struct sheet *sheet,
                          const struct sheet_row *row)
{
    canvas_place(canvas, MARGIN, y + STRIPE, &row->original);
    for (size_t i = 0; i < row->count && row->views[i].epoch == row->views[0].epoch; i++) {
        draw_window(canvas, MARGIN, y + STRIPE, row, &row->views[i]);
    }
    char size[96];
    snprintf(size, sizeof size, "record %" PRIu64 ", %u x %u", row->record, row->width,
             row->height);
    int64_t top = y + caption_top(sheet);
    if (row->label[0]) {
        draw_name(canvas, MARGIN, top, original_width(sheet->size), row->label);
        top += LINE;
    }
    draw_name(canvas, MARGIN, top, original_width(sheet->size), row->name);
    canvas_text(canvas, MARGIN, top + LINE, TEXT, pale, size);
}

static enum status draw_row(struct image *canvas, int64_t y, const struct sheet *sheet,
                            const struct sheet_row *row, struct error *error)
{
    int64_t side = tile_side(sheet->size);
    draw_original(canvas, y, sheet, row);
    for (size_t i = 0; i < row->count; i++) {
        struct canvas_box place = {view_left(sheet, row, i), y, side, STRIPE + side};
        enum status status = draw_view(canvas, place, &row->views[i], error);
        if (status != STATUS_OK) {
            return status;
        }
        char caption[256];
        describe(&row->views[i].params, caption, sizeof caption);
        draw_wrapped(canvas, place.x, y + caption_top(sheet), side, CAPTION_LINES, pale, caption);
    }
    return STATUS_OK;
}

// --- the sheet -----------------------------------------------------------------------------------

// Names the columns after the first row.
static void draw_columns(struct image *canvas, int64_t y, const struct sheet *sheet)
{
    const struct sheet_row *row = &sheet->rows[0];
    canvas_text(canvas, MARGIN, y, TEXT, ink, "original");
    for (size_t i = 0; i < row->count; i++) {
        char text[64];
        const struct sheet_view *view = &row->views[i];
        snprintf(text, sizeof text, "epoch %u, view %u", view->epoch, view->view + 1);
        canvas_text(canvas, view_left(sheet, row, i), y, TEXT,
                    view_colors[view->view % RECIPE_MAX_VIEWS], text);
    }
}

static void draw_head(struct image *canvas, const struct sheet *sheet)
{
    canvas_text(canvas, MARGIN, MARGIN, TITLE, ink, sheet->title);
    int64_t y = MARGIN + TITLE_HEIGHT;
    for (size_t i = 0; i < 3 && sheet->notes[i][0]; i++, y += LINE) {
        canvas_text(canvas, MARGIN, y, TEXT, pale, sheet->notes[i]);
    }
    if (sheet->count > 0) {
        draw_columns(canvas, head_height(sheet) - LINE, sheet);
    }
}

enum status sheet_draw(const struct sheet *sheet, struct image *out, struct error *error)
{
    int64_t width = sheet_width(sheet), head = head_height(sheet);
    int64_t height = head + (int64_t)sheet->count * row_height(sheet) + MARGIN - ROW_GAP;
    if (width > LIMIT_IMAGE_SIDE || height > LIMIT_IMAGE_SIDE ||
        width * height > (int64_t)LIMIT_IMAGE_PIXELS) {
        return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                         "the sheet would have %lld x %lld pixels: show fewer images or pairs",
                         (long long)width, (long long)height);
    }
    enum status status = image_reserve(out, (uint32_t)width, (uint32_t)height, error);
    if (status != STATUS_OK) {
        return status;
    }
    canvas_fill(out, (struct canvas_box){0, 0, width, height}, paper);
    draw_head(out, sheet);
    for (size_t i = 0; status == STATUS_OK && i < sheet->count; i++) {
        int64_t y = head + (int64_t)i * row_height(sheet);
        status = draw_row(out, y, sheet, &sheet->rows[i], error);
    }
    return status;
}

void sheet_free(struct sheet *sheet)
{
    for (size_t i = 0; sheet->rows && i < sheet->count; i++) {
        struct sheet_row *row = &sheet->rows[i];
        for (size_t j = 0; row->views && j < row->count; j++) {
            free(row->views[j].pixels);
        }
        free(row->views);
        image_free(&row->original);
    }
    free(sheet->rows);
    *sheet = (struct sheet){0};
}
