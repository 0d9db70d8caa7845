// Layout: title and legend; then for each row its name, a bar with the spread of its seeds and
// the figures; the paper's bar, where there is one, stands right below.
#include "tools/ablate_chart.h"

#include "formats/file.h"
#include "tools/canvas.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MARGIN = 40,
    HEAD = 90, // title, what is shown
    BAR = 20,
    PAPER_BAR = 9,
    ROW_GAP = 20,
    BAR_ROOM = 560, // 100 percent of the scale
    FIGURE_ROOM = 350,
    LINE = 19,
    MOST_ROWS = 200, // drawn: a picture that still opens everywhere
};
#define TEXT  1.6
#define TITLE 2.6

static const struct canvas_color paper = {250, 249, 246}, ink = {38, 38, 43},
                                 pale = {122, 121, 118}, grid = {225, 223, 217},
                                 ours = {24, 116, 205}, theirs = {240, 178, 122};

static size_t rows_drawn(const struct ablate_table *table)
{
    return table->plan->row_count < MOST_ROWS ? table->plan->row_count : MOST_ROWS;
}

static int64_t names_width(const struct ablate_table *table)
{
    int64_t width = 0;
    for (size_t i = 0; i < rows_drawn(table); i++) {
        int64_t own = canvas_text_width(table->plan->rows[i].name, TEXT);
        width = own > width ? own : width;
    }
    return width + 20;
}

// The end of the scale: the next ten above every figure.
static double scale_end(const struct ablate_table *table)
{
    double most = 10;
    for (size_t i = 0; i < rows_drawn(table); i++) {
        const struct ablate_line *line = &table->lines[i];
        const double values[] = {line->row->paper,
                                 line->cells[0].mean +
                                     (isfinite(line->cells[0].sd) ? line->cells[0].sd : 0)};
        for (size_t j = 0; j < 2; j++) {
            most = isfinite(values[j]) && values[j] > most ? values[j] : most;
        }
    }
    return ceil(most / 10) * 10;
}

static void draw_bar(struct image *canvas, int64_t x, int64_t y, int64_t height, double share,
                     struct canvas_color color)
{
    if (isfinite(share)) {
        canvas_fill(canvas, (struct canvas_box){x, y, llround(share * BAR_ROOM), height}, color);
    }
}

// A line from mean - sd to mean + sd with ends.
static void draw_spread(struct image *canvas, int64_t x, int64_t y, double mean, double sd,
                        double end)
{
    if (!isfinite(sd)) {
        return;
    }
    int64_t from = x + llround(fmax(mean - sd, 0) / end * BAR_ROOM);
    int64_t to = x + llround((mean + sd) / end * BAR_ROOM);
    canvas_fill(canvas, (struct canvas_box){from, y + BAR / 2 - 1, to - from, 2}, ink);
    canvas_fill(canvas, (struct canvas_box){from - 1, y + 5, 2, BAR - 10}, ink);
    canvas_fill(canvas, (struct canvas_box){to - 1, y + 5, 2, BAR - 10}, ink);
}

static void describe(const struct ablate_line *line, bool first, size_t seeds, char *text,
                     size_t capacity)
{
    const struct ablate_cell *cell = &line->cells[0];
    char sd[32] = "", difference[32] = "", part[64] = "";
    if (cell->count == 0) {
        snprintf(text, capacity, "%.40s",
                 line->row->waits_for[0] ? "not available yet"
                 : line->failure[0]      ? "failed"
                                         : "not measured yet");
        return;
    }
    if (isfinite(cell->sd)) {
        snprintf(sd, sizeof sd, " +- %.2f", cell->sd);
    }
    if (!first && isfinite(cell->difference)) {
        snprintf(difference, sizeof difference, "  (%+.2f)", cell->difference);
    }
    if (cell->count < seeds) {
        snprintf(part, sizeof part, "  %zu of %zu seeds", cell->count, seeds);
    }
    snprintf(text, capacity, "%.2f%s%s%s", cell->mean, sd, difference, part);
}

static void describe_paper(const struct ablate_line *line, bool first, char *text, size_t capacity)
{
    snprintf(text, capacity, "paper %.4g", line->row->paper);
    if (!first && isfinite(line->paper_difference)) {
        size_t len = strlen(text);
        snprintf(text + len, capacity - len, "  (%+.1f)", line->paper_difference);
    }
}

static int64_t row_height(bool with_paper)
{
    return BAR + (with_paper ? PAPER_BAR + 10 : 0) + ROW_GAP;
}

static void draw_row(struct image *canvas, int64_t y, const struct ablate_table *table,
                     size_t which, double end)
{
    const struct ablate_line *line = &table->lines[which];
    int64_t x = MARGIN + names_width(table), figures = x + BAR_ROOM + 16;
    char text[192];
    canvas_text(canvas, MARGIN, y + 3, TEXT, ink, line->row->name);
    draw_bar(canvas, x, y, BAR, line->cells[0].mean / end, ours);
    draw_spread(canvas, x, y, line->cells[0].mean, line->cells[0].sd, end);
    describe(line, which == 0, table->plan->seed_count, text, sizeof text);
    canvas_text(canvas, figures, y + 3, TEXT, line->cells[0].count ? ink : pale, text);
    if (isfinite(line->row->paper)) {
        draw_bar(canvas, x, y + BAR + 3, PAPER_BAR, line->row->paper / end, theirs);
        describe_paper(line, which == 0, text, sizeof text);
        canvas_text(canvas, figures, y + BAR + 2, TEXT, pale, text);
    }
}

static void draw_head(struct image *canvas, const struct ablate_table *table)
{
    const struct ablate_plan *plan = table->plan;
    char text[400];
    canvas_text(canvas, MARGIN, MARGIN, TITLE, ink, plan->title[0] ? plan->title : plan->path);
    snprintf(text, sizeof text,
             "%s top-1 in percent, mean and standard deviation (n - 1) over %zu seed%s",
             plan->measures[0].name, plan->seed_count, plan->seed_count > 1 ? "s" : "");
    canvas_text(canvas, MARGIN, MARGIN + 34, TEXT, pale, text);
    if (plan->paper_is[0]) {
        snprintf(text, sizeof text, "paper: %s", plan->paper_is);
        canvas_text(canvas, MARGIN, MARGIN + 34 + LINE, TEXT, pale, text);
    }
}

static void draw_scale(struct image *canvas, const struct ablate_table *table, int64_t top,
                       int64_t bottom, double end)
{
    int64_t x = MARGIN + names_width(table);
    for (int value = 0; value <= end; value += 10) {
        char text[16];
        int64_t at = x + llround(value / end * BAR_ROOM);
        snprintf(text, sizeof text, "%d", value);
        canvas_fill(canvas, (struct canvas_box){at, top, 1, bottom - top}, grid);
        canvas_text(canvas, at - canvas_text_width(text, TEXT) / 2, bottom + 6, TEXT, pale, text);
    }
}

static enum status draw(const struct ablate_table *table, struct image *canvas, struct error *error)
{
    size_t rows = rows_drawn(table);
    double end = scale_end(table);
    int64_t height = MARGIN + HEAD,
            width = 2 * MARGIN + names_width(table) + BAR_ROOM + FIGURE_ROOM;
    for (size_t i = 0; i < rows; i++) {
        height += row_height(isfinite(table->plan->rows[i].paper));
    }
    int64_t bottom = height;
    height += MARGIN + LINE;
    enum status status = image_reserve(canvas, (uint32_t)width, (uint32_t)height, error);
    if (status != STATUS_OK) {
        return status;
    }
    canvas_fill(canvas, (struct canvas_box){0, 0, width, height}, paper);
    draw_head(canvas, table);
    draw_scale(canvas, table, MARGIN + HEAD - 8, bottom - 8, end);
    int64_t y = MARGIN + HEAD;
    for (size_t i = 0; i < rows; i++) {
        draw_row(canvas, y, table, i, end);
        y += row_height(isfinite(table->plan->rows[i].paper));
    }
    if (rows < table->plan->row_count) {
        char text[64];
        snprintf(text, sizeof text, "and %zu rows more: table.txt", table->plan->row_count - rows);
        canvas_text(canvas, MARGIN, bottom + 6, TEXT, pale, text);
    }
    return STATUS_OK;
}

enum status ablate_chart_write(const struct ablate_table *table, const char *output,
                               struct error *error)
{
    struct image canvas = {0};
    uint8_t *bytes = NULL;
    size_t len = 0;
    char path[RUN_PATH];
    enum status status = run_directory_path(output, "table.png", path, error);
    if (status == STATUS_OK) {
        status = draw(table, &canvas, error);
    }
    if (status == STATUS_OK) {
        status = image_encode_png(&canvas, &bytes, &len, error);
    }
    if (status == STATUS_OK) {
        status = file_write_durably(path, bytes, len, error);
    }
    free(bytes);
    image_free(&canvas);
    return status;
}
