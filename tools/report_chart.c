// Scales, ticks, curves.
//
// A curve has at most POINTS points: means of as many equal pieces of the log; the range within
// each piece is a pale band around it.
#include "tools/report_chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/html.h"

enum {
    WIDTH = 520,
    HEIGHT = 300,
    LEFT = 62,
    RIGHT = 16,
    TOP = 14,
    BOTTOM = 46,
    POINTS = 240,
    TICKS = 5,
    MOST_TICKS = 4 * TICKS,
    DOT_ROOM = 12, // between measurements that are drawn as dots
    COLUMN_WIDTH = 24,
    NAME_ROOM = 13, // between the numbers at the curves' ends
    MOST_NAMES = (HEIGHT - TOP - BOTTOM) / NAME_ROOM
};

struct plot {
    FILE *page;
    const struct chart *chart;
    const struct chart_axis *axis;
    double x[2], y[2]; // ranges of the axes, as shown
};

// --- pieces of a curve -------------------------------------------------------------------------

struct piece {
    double x, mean, low, high;
};

static double x_of(const struct chart_axis *axis, const struct report_run *run, double step)
{
    return axis->epochs ? step / (double)run->steps_per_epoch : step;
}

static size_t cut(const struct report_series *series, size_t *size)
{
    *size = (series->count + POINTS - 1) / POINTS;
    return *size == 0 ? 0 : (series->count + *size - 1) / *size;
}

static struct piece piece_at(const struct plot *plot, const struct report_run *run,
                             const struct report_series *series, size_t index, size_t size)
{
    size_t from = index * size, to = from + size < series->count ? from + size : series->count;
    struct piece piece = {.low = INFINITY, .high = -INFINITY};
    for (size_t i = from; i < to; i++) {
        double value = series->value[i] * plot->chart->scale;
        piece.mean += value / (double)(to - from);
        piece.low = fmin(piece.low, value);
        piece.high = fmax(piece.high, value);
    }
    piece.x = x_of(plot->axis, run, series->step[to - 1]);
    return piece;
}

// --- ranges --------------------------------------------------------------------------------------

static void widen(struct plot *plot, const struct report_run *run,
                  const struct report_series *series)
{
    size_t size, count = cut(series, &size);
    for (size_t i = 0; i < count; i++) {
        struct piece piece = piece_at(plot, run, series, i, size);
        plot->x[1] = fmax(plot->x[1], piece.x);
        plot->y[0] = fmin(plot->y[0], piece.mean);
        plot->y[1] = fmax(plot->y[1], piece.mean);
    }
}

// 1, 2 or 5 times a power of ten, so that about TICKS of them make the span.
static double tick_step(double span)
{
    double rough = span / TICKS, power = pow(10, floor(log10(rough))), rest = rough / power;
    return power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10);
}

static void round_range(double range[2])
{
    double step = tick_step(range[1] - range[0]);
    range[0] = floor(range[0] / step + 1e-9) * step;
    range[1] = ceil(range[1] / step - 1e-9) * step;
}

// False when there is nothing to draw.
static bool find_ranges(struct plot *plot, const struct report_run *runs, size_t count)
{
    const struct chart *chart = plot->chart;
    plot->y[0] = INFINITY;
    plot->y[1] = -INFINITY;
    for (size_t f = 0; f < chart->figure_count; f++) {
        for (size_t i = 0; i < count; i++) {
            widen(plot, &runs[i], &runs[i].series[chart->figures[f]]);
        }
    }
    if (!(plot->y[0] <= plot->y[1]) || !isfinite(plot->y[1] - plot->y[0])) {
        return false;
    }
    for (size_t i = 0; i < 2 && chart->levels[i].label; i++) {
        plot->y[0] = fmin(plot->y[0], chart->levels[i].value);
        plot->y[1] = fmax(plot->y[1], chart->levels[i].value);
    }
    plot->y[0] = chart->from_zero ? fmin(0, plot->y[0]) : plot->y[0];
    plot->y[1] = fmax(plot->y[1], plot->y[0] + chart->least_span);
    // Values so near each other that ticks could not tell them apart.
    double size = fmax(fabs(plot->y[0]), fabs(plot->y[1])), least = fmax(size, 1) * 0.01;
    if (plot->y[1] - plot->y[0] <= fmax(size * 1e-8, 1e-300)) {
        bool up = chart->most <= 0 || plot->y[1] + least <= chart->most;
        plot->y[up] += up ? least : -least;
    }
    round_range(plot->y);
    if (chart->most > 0) {
        plot->y[1] = fmin(plot->y[1], fmax(chart->most, plot->y[0] + chart->least_span));
    }
    plot->x[1] = fmax(plot->x[1], plot->axis->epochs ? 0.01 : 1);
    return true;
}

// --- drawing -------------------------------------------------------------------------------------

static double place_x(const struct plot *plot, double x)
{
    return LEFT + (x - plot->x[0]) / (plot->x[1] - plot->x[0]) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct plot *plot, double y)
{
    return HEIGHT - BOTTOM - (y - plot->y[0]) / (plot->y[1] - plot->y[0]) * (HEIGHT - TOP - BOTTOM);
}

// As many decimals as tell neighbouring ticks apart; thousands as k.
static void print_tick(FILE *page, double value, double step, const char *unit)
{
    value = fabs(value) < step * 1e-6 ? 0 : value;
    if (fabs(value) >= 10000 || (step >= 1000 && value != 0)) {
        fprintf(page, "%.*fk", step < 1000 ? (step < 100 ? 2 : 1) : 0, value / 1000);
    } else {
        double digits = ceil(-log10(step) - 1e-9);
        fprintf(page, "%.*f%s", digits > 0 ? (int)fmin(digits, 9) : 0, value, unit);
    }
}

static void draw_ticks(const struct plot *plot)
{
    double step = tick_step(plot->y[1] - plot->y[0]);
    for (int i = 0; i <= MOST_TICKS && plot->y[0] + i * step <= plot->y[1] + step * 1e-6; i++) {
        double y = plot->y[0] + i * step;
        double at = place_y(plot, y);
        fprintf(plot->page,
                "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
                LEFT, WIDTH - RIGHT, at, at, LEFT - 7, at + 4.5);
        print_tick(plot->page, y, step, plot->chart->unit);
        fputs("</text>\n", plot->page);
    }
    step = tick_step(plot->x[1]);
    step = plot->axis->epochs && plot->x[1] >= 5 ? fmax(step, 1) : step;
    for (int i = 0; i <= MOST_TICKS && i * step <= plot->x[1] + step * 1e-6; i++) {
        double x = i * step;
        double at = place_x(plot, x);
        fprintf(plot->page,
                "<line class=\"tickmark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>"
                "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">",
                at, at, HEIGHT - BOTTOM, HEIGHT - BOTTOM + 5, at, HEIGHT - BOTTOM + 20);
        print_tick(plot->page, x, step, "");
        fputs("</text>\n", plot->page);
    }
    fprintf(plot->page,
            "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>"
            "<text class=\"tick\" x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
            LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 6, plot->axis->epochs ? "epoch" : "step");
}

static void draw_levels(const struct plot *plot)
{
    const struct chart_level *levels = plot->chart->levels;
    if (plot->chart->band) {
        double high = place_y(plot, fmax(levels[0].value, levels[1].value));
        double low = place_y(plot, fmin(levels[0].value, levels[1].value));
        fprintf(plot->page,
                "<rect class=\"band\" x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%.1f\"/>\n", LEFT,
                high, WIDTH - LEFT - RIGHT, low - high);
    }
    for (size_t i = 0; i < 2 && levels[i].label; i++) {
        double y = place_y(plot, levels[i].value);
        fprintf(plot->page, "<line class=\"level\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
                LEFT, WIDTH - RIGHT, y, y);
    }
}

// Above the curves, or they would hide it.
static void name_levels(const struct plot *plot)
{
    const struct chart_level *levels = plot->chart->levels;
    for (size_t i = 0; i < 2 && levels[i].label; i++) {
        double y = place_y(plot, levels[i].value);
        bool below = y < TOP + 18 || (levels[1].label && levels[i].value < levels[1 - i].value);
        fprintf(plot->page, "<text class=\"note\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
                WIDTH - RIGHT - 4, below ? y + 14 : y - 5);
        html_text(plot->page, levels[i].label);
        fputs("</text>\n", plot->page);
    }
}

static void draw_range(const struct plot *plot, const struct report_run *run, size_t number,
                       const struct report_series *series)
{
    size_t size, count = cut(series, &size);
    if (size < 2) {
        return;
    }
    fprintf(plot->page, "<polygon class=\"range run%zu r%zu\" points=\"", number % CHART_COLOURS,
            number);
    for (size_t i = 0; i < 2 * count; i++) {
        size_t index = i < count ? i : 2 * count - 1 - i;
        struct piece piece = piece_at(plot, run, series, index, size);
        double y = i < count ? piece.high : piece.low;
        y = fmin(fmax(y, plot->y[0]), plot->y[1]);
        fprintf(plot->page, "%s%.1f,%.1f", i > 0 ? " " : "", place_x(plot, piece.x),
                place_y(plot, y));
    }
    fputs("\"/>\n", plot->page);
}

static void draw_dot(const struct plot *plot, size_t number, double x, double y)
{
    fprintf(plot->page, "<circle class=\"dot run%zu r%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.2\"/>",
            number % CHART_COLOURS, number, x, y);
}

static double curve_width(const struct plot *plot, const struct report_run *run,
                          const struct report_series *series)
{
    return place_x(plot, x_of(plot->axis, run, series->step[series->count - 1])) -
           place_x(plot, x_of(plot->axis, run, series->step[0]));
}

static void draw_curve(const struct plot *plot, const struct report_run *run, size_t number,
                       size_t which)
{
    const struct report_series *series = &run->series[plot->chart->figures[which]];
    size_t size, count = cut(series, &size);
    if (count == 0) {
        return;
    }
    fprintf(plot->page, "<polyline class=\"curve run%zu r%zu%s\" data-name=\"",
            number % CHART_COLOURS, number, which > 0 ? " dashed" : "");
    html_text(plot->page, run->name);
    html_format(plot->page, "%s%s", plot->chart->whats[which][0] ? ", " : "",
                plot->chart->whats[which]);
    fputs("\" points=\"", plot->page);
    for (size_t i = 0; i < count; i++) {
        struct piece piece = piece_at(plot, run, series, i, size);
        fprintf(plot->page, "%s%.1f,%.2f", i > 0 ? " " : "", place_x(plot, piece.x),
                place_y(plot, piece.mean));
    }
    fputs("\"/>\n", plot->page);
    if (count > 1 + (size_t)(curve_width(plot, run, series) / DOT_ROOM)) {
        return;
    }
    for (size_t i = 0; i < count; i++) { // few measurements are seen as such
        struct piece piece = piece_at(plot, run, series, i, size);
        draw_dot(plot, number, place_x(plot, piece.x), place_y(plot, piece.mean));
    }
}

// --- which curve is whose ------------------------------------------------------------------------

struct end {
    double x, y;
    size_t number;
};

// Curves that end side by side share a column of numbers.
static int column_of(const struct end *end)
{
    return (int)(end->x / COLUMN_WIDTH);
}

static int by_column_and_height(const void *left, const void *right)
{
    const struct end *a = left, *b = right;
    if (column_of(a) != column_of(b)) {
        return column_of(a) - column_of(b);
    }
    return a->y != b->y ? (a->y > b->y) - (a->y < b->y)
                        : (a->number > b->number) - (a->number < b->number);
}

// Moves the numbers of a column apart: downwards, and back up where that leaves the plot.
static void part_ends(struct end *ends, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (column_of(&ends[i]) == column_of(&ends[i - 1])) {
            ends[i].y = fmax(ends[i].y, ends[i - 1].y + NAME_ROOM);
        }
    }
    for (size_t i = count; i-- > 0;) {
        bool lowest = i + 1 == count || column_of(&ends[i]) != column_of(&ends[i + 1]);
        ends[i].y = fmin(ends[i].y, lowest ? HEIGHT - BOTTOM : ends[i + 1].y - NAME_ROOM);
    }
}

// More runs than colours: a number at the end of each run's first curve, as in the legend.
static void number_ends(const struct plot *plot, const struct report_run *runs, size_t count)
{
    struct end ends[MOST_NAMES] = {{0}};
    size_t found = 0;
    for (size_t i = 0; count > CHART_COLOURS && i < count; i++) {
        const struct report_series *series = &runs[i].series[plot->chart->figures[0]];
        size_t size, pieces = cut(series, &size);
        if (pieces == 0) {
            continue;
        }
        if (found == MOST_NAMES) {
            return; // no room to tell so many apart: the pointer does
        }
        struct piece piece = piece_at(plot, &runs[i], series, pieces - 1, size);
        ends[found++] = (struct end){place_x(plot, piece.x), place_y(plot, piece.mean), i};
    }
    qsort(ends, found, sizeof ends[0], by_column_and_height);
    part_ends(ends, found);
    for (size_t i = 0; i < found; i++) {
        fprintf(plot->page, "<text class=\"end run%zu r%zu\" x=\"%.1f\" y=\"%.1f\">%zu</text>\n",
                ends[i].number % CHART_COLOURS, ends[i].number, ends[i].x + 3, ends[i].y + 4,
                ends[i].number + 1);
    }
}

// What the picture shows, for who cannot see it.
static void describe(const struct plot *plot, const struct report_run *runs, size_t count)
{
    const struct chart *chart = plot->chart;
    for (size_t f = 0; f < chart->figure_count; f++) {
        for (size_t i = 0; i < count; i++) {
            const struct report_series *series = &runs[i].series[chart->figures[f]];
            if (series->count > 0) {
                html_format(plot->page, "%s%s%s: from %.4g%s to %.4g%s. ", runs[i].name,
                            chart->whats[f][0] ? ", " : "", chart->whats[f],
                            series->value[0] * chart->scale, chart->unit,
                            series->value[series->count - 1] * chart->scale, chart->unit);
            }
        }
    }
}

static void draw_svg(const struct plot *plot, const struct report_run *runs, size_t count)
{
    const struct chart *chart = plot->chart;
    FILE *page = plot->page;
    fprintf(page,
            "<svg class=\"chart\" viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"%s-t %s-d\" "
            "data-box=\"%d,%d,%d,%d\" data-x=\"%.9g,%.9g\" data-y=\"%.9g,%.9g\" data-unit=\"%s\" "
            "data-axis=\"%s\">\n<title id=\"%s-t\">",
            WIDTH, HEIGHT, chart->id, chart->id, LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM,
            plot->x[0], plot->x[1], plot->y[0], plot->y[1], chart->unit,
            plot->axis->epochs ? "epoch" : "step", chart->id);
    html_text(page, chart->title);
    fprintf(page, "</title>\n<desc id=\"%s-d\">", chart->id);
    describe(plot, runs, count);
    fputs("</desc>\n", page);
    draw_levels(plot);
    draw_ticks(plot);
    for (size_t f = 0; f < chart->figure_count; f++) {
        for (size_t i = 0; i < count; i++) {
            draw_range(plot, &runs[i], i, &runs[i].series[chart->figures[f]]);
        }
    }
    for (size_t f = 0; f < chart->figure_count; f++) {
        for (size_t i = 0; i < count; i++) {
            draw_curve(plot, &runs[i], i, f);
        }
    }
    name_levels(plot);
    number_ends(plot, runs, count);
    fputs("</svg>\n", page);
}

bool chart_draw(FILE *page, const struct chart *chart, const struct chart_axis *axis,
                const struct report_run *runs, size_t count)
{
    struct plot plot = {.page = page, .chart = chart, .axis = axis};
    if (!find_ranges(&plot, runs, count)) {
        return false;
    }
    fprintf(page, "<figure id=\"%s\">\n<h3>", chart->id);
    html_text(page, chart->title);
    fputs("</h3>\n", page);
    draw_svg(&plot, runs, count);
    fputs("<figcaption>", page);
    html_text(page, chart->caption);
    fputs("</figcaption>\n</figure>\n", page);
    return true;
}
