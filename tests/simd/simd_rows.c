// The row kernels of augment/rows.h, one by one: every level against the plain C of
// augment/kernels.h, on rows that end where memory does.
#include "augment/kernels.h"
#include "augment/resize_plan.h"
#include "augment/rows.h"
#include "tests/simd/guard.h"
#include "tests/simd/simd.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH  300
#define MAX_STRIDE 320
#define MAX_RADIUS 20
#define HSV_BOUND  3e-6 // stated in rows.h

// Everything a kernel reads and writes lies at the end of a guarded page of its own.
enum place { IN, OUT = 3, LINE = 6, PLACES = 9 };
static struct guard guards[PLACES];

static struct {
    uint64_t random;
    uint32_t width, stride;
    enum isa isa;
    float plain[MAX_WIDTH * 3];      // what plain C gives, interleaved
    float narrowest[4 * MAX_STRIDE]; // what the narrowest level gave
    bool has_narrowest;
} now;

static float *row_at(enum place place, size_t floats)
{
    return guard_last(&guards[place], floats * sizeof(float));
}

static int complain(const char *what, double by)
{
    printf("%s at %s, width %u: off by %g\n", what, isa_name(now.isa), now.width, by);
    return 1;
}

// Of `count` values: near `plain`, and the bits that the narrowest level gave.
static int compare(const char *what, const float *out, const float *plain, size_t count,
                   double bound)
{
    double worst = 0;
    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)out[i] - (double)plain[i]);
        worst = difference > worst || isnan(difference) ? difference : worst;
    }
    if (!(worst <= bound)) {
        return complain(what, worst);
    }
    if (now.has_narrowest && memcmp(out, now.narrowest, count * sizeof *out) != 0) {
        return complain("bits", 0);
    }
    memcpy(now.narrowest, out, count * sizeof *out);
    return 0;
}

// Three rows, interleaved.
static int compare_planes(const char *what, float *const out[3], size_t planes, double bound)
{
    float joined[MAX_WIDTH * 3];
    for (size_t i = 0; i < now.width * 3; i++) {
        joined[i] = out[planes == 3 ? i % 3 : 0][i / 3];
    }
    return compare(what, joined, now.plain, now.width * 3, bound);
}

// Runs a check at every level on the same random case.
static int at_levels(int (*check)(void))
{
    enum isa levels[ISA_COUNT];
    size_t count = simd_levels(levels);
    uint64_t start = now.random;
    int failed = 0;
    now.has_narrowest = false;
    for (size_t i = 0; i < count && !failed; i++) {
        now.isa = levels[i];
        now.random = start;
        failed = check();
        now.has_narrowest = true;
    }
    return failed;
}

// --- resize -------------------------------------------------------------------------------------

static int check_vertical(void)
{
    const struct resize_kernels *kernels = ISA_SELECT(resize_kernels, now.isa);
    const uint8_t *rows[4];
    uint32_t bytes = (now.width + ROW_LANES - 1) / ROW_LANES * ROW_LANES;
    for (size_t tap = 0; tap < 4; tap++) {
        uint8_t *row = guard_last(&guards[IN + tap], bytes);
        for (size_t x = 0; x < bytes; x++) {
            row[x] = (uint8_t)simd_random(&now.random);
        }
        rows[tap] = row;
    }
    float weight[4], plain[MAX_WIDTH];
    resize_inner_weights(weight, simd_between(&now.random, 0, RESIZE_STEPS));
    for (size_t x = 0; x < now.width; x++) {
        plain[x] = weight[0] * (float)rows[0][x] + weight[1] * (float)rows[1][x] +
                   weight[2] * (float)rows[2][x] + weight[3] * (float)rows[3][x];
    }
    float *line = row_at(LINE, bytes);
    kernels->vertical(line, rows, weight, now.width);
    return compare("resize.vertical", line, plain, now.width, 0);
}

static void plain_horizontal(const float *const line[3], uint32_t in, bool flip)
{
    struct resize_taps taps[MAX_WIDTH];
    resize_taps_fill(taps, in, now.width);
    for (size_t i = 0; i < now.width * 3; i++) {
        const struct resize_taps *at = &taps[flip ? now.width - 1 - i / 3 : i / 3];
        const float *from = line[i % 3];
        now.plain[i] = at->weight[0] * from[at->index[0]] + at->weight[1] * from[at->index[1]] +
                       at->weight[2] * from[at->index[2]] + at->weight[3] * from[at->index[3]];
    }
    color_scale_c(now.plain, now.width);
}

static int check_horizontal(void)
{
    static struct resize_table table;
    static int32_t first[MAX_STRIDE];
    static float weights[4][MAX_STRIDE];
    struct row_columns columns = {first, {weights[0], weights[1], weights[2], weights[3]}, 0, 0};
    const struct resize_kernels *kernels = ISA_SELECT(resize_kernels, now.isa);
    uint32_t in = simd_between(&now.random, 1, simd_random(&now.random) % 2 ? 100 : 2000);
    bool flip = simd_random(&now.random) % 2;
    float *out[3], *line[3];
    resize_table_fill(&table);
    resize_plan_columns(&columns, now.stride, in, now.width, flip, &table);
    for (size_t plane = 0; plane < 3; plane++) {
        out[plane] = row_at((enum place)(OUT + plane), now.stride);
        line[plane] = row_at((enum place)(LINE + plane), in + ROW_SLACK);
        for (size_t x = 0; x < in; x++) {
            line[plane][x] = simd_unit(&now.random) * 300 - 20;
        }
        memset(line[plane] - 4, 0, 4 * sizeof(float));
        memset(line[plane] + in, 0, ROW_SLACK * sizeof(float));
    }
    const float *const lines[3] = {line[0], line[1], line[2]};
    plain_horizontal(lines, in, flip);
    kernels->horizontal(out, lines, 3, &columns);
    return compare_planes("resize.horizontal", out, 3, 0);
}

// --- colour -------------------------------------------------------------------------------------

static float any_pixel(void)
{
    uint32_t kind = simd_between(&now.random, 0, 9);
    return kind == 0 ? 0 : kind == 1 ? 1 : simd_unit(&now.random);
}

// Fills rows IN with pixels, some of them grey, and `plain` with the same.
static void any_pixels(float *in[3])
{
    for (size_t plane = 0; plane < 3; plane++) {
        in[plane] = row_at((enum place)(IN + plane), now.stride);
        memset(in[plane], 0, now.stride * sizeof(float));
    }
    for (size_t x = 0; x < now.width; x++) {
        bool grey = simd_between(&now.random, 0, 7) == 0;
        for (size_t plane = 0; plane < 3; plane++) {
            in[plane][x] = grey && plane > 0 ? in[0][x] : any_pixel();
            now.plain[x * 3 + plane] = in[plane][x];
        }
    }
}

static int run_step(const char *what, struct row_step step, float *in[3], double bound)
{
    const struct color_kernels *kernels = ISA_SELECT(color_kernels, now.isa);
    float *out[3];
    for (size_t plane = 0; plane < 3; plane++) {
        out[plane] = row_at((enum place)(OUT + plane), now.stride);
    }
    const float *const from[3] = {in[0], in[1], in[2]};
    kernels->apply(out, from, 3, now.width, &step, 1, NULL);
    color_clip_c(now.plain, now.width);
    return compare_planes(what, out, step.op == ROW_GRAYSCALE ? 1 : 3, bound);
}

static int check_brightness(void)
{
    float *in[3], amount = simd_unit(&now.random) * 2 - 1;
    any_pixels(in);
    color_brightness_c(now.plain, now.width, amount);
    return run_step("brightness", (struct row_step){.op = ROW_BRIGHTNESS, .amount = amount}, in, 0);
}

static int check_grayscale(void)
{
    float *in[3];
    any_pixels(in);
    color_grayscale_c(now.plain, now.width);
    return run_step("grayscale", (struct row_step){.op = ROW_GRAYSCALE}, in, 0);
}

static int check_saturation(void)
{
    float *in[3], amount = simd_unit(&now.random) * 2;
    any_pixels(in);
    color_saturation_c(now.plain, now.width, amount);
    return run_step("saturation", (struct row_step){.op = ROW_HSV, .amount = amount}, in,
                    HSV_BOUND);
}

static int check_hue(void)
{
    float *in[3], turn = simd_unit(&now.random) - 0.5f;
    any_pixels(in);
    color_hue_c(now.plain, now.width, turn);
    struct row_step step = {.op = ROW_HSV, .amount = 1, .turn = turn};
    return run_step("hue", step, in, HSV_BOUND);
}

static int check_both(void)
{
    float *in[3], turn = simd_unit(&now.random) - 0.5f, amount = simd_unit(&now.random) * 2;
    any_pixels(in);
    if (simd_random(&now.random) % 2) {
        color_hue_c(now.plain, now.width, turn);
        color_saturation_c(now.plain, now.width, amount);
    } else {
        color_saturation_c(now.plain, now.width, amount);
        color_hue_c(now.plain, now.width, turn);
    }
    struct row_step step = {.op = ROW_HSV, .amount = amount, .turn = turn};
    return run_step("saturation and hue", step, in, HSV_BOUND);
}

// Contrast, with the means that come of the kernel's own sums.
static int check_contrast(void)
{
    const struct color_kernels *kernels = ISA_SELECT(color_kernels, now.isa);
    float *in[3];
    struct row_step step = {.op = ROW_CONTRAST, .amount = simd_unit(&now.random) * 2};
    struct row_sums sums = {0};
    any_pixels(in);
    const float *const from[3] = {in[0], in[1], in[2]};
    for (size_t plane = 0; plane < 3; plane++) { // what lies behind the row must not count
        for (size_t x = now.width; x < now.stride; x++) {
            in[plane][x] = 0.5f;
        }
    }
    kernels->apply(in, from, 3, now.width, NULL, 0, &sums);
    for (size_t plane = 0; plane < 3; plane++) {
        uint64_t sum = 0;
        for (size_t lane = 0; lane < ROW_LANES; lane++) {
            sum += sums.lane[plane][lane];
        }
        step.mean[plane] = (float)((double)sum * 0x1p-30 / now.width);
    }
    color_contrast_c(now.plain, now.width, step.amount);
    return run_step("contrast", step, in, 0);
}

// --- blur ---------------------------------------------------------------------------------------

static float plain_blur(const float *in, size_t step, const float *weights, size_t radius)
{
    float sum = 0;
    for (size_t tap = 0; tap <= 2 * radius; tap++) {
        sum += weights[tap] * in[tap * step];
    }
    return sum;
}

static int check_blur_horizontal(void)
{
    const struct blur_kernels *kernels = ISA_SELECT(blur_kernels, now.isa);
    size_t radius = simd_between(&now.random, 0, MAX_RADIUS);
    float weights[2 * MAX_RADIUS + 1], plain[MAX_WIDTH];
    float *in = row_at(IN, now.stride + radius + ROW_LANES), *out = row_at(OUT, now.stride);
    blur_weights_fill(weights, (uint32_t)(2 * radius + 1), 0.3f + simd_unit(&now.random) * 5);
    memset(in - radius, 0, (now.stride + 2 * radius + ROW_LANES) * sizeof(float));
    for (size_t x = 0; x < now.width; x++) {
        in[x] = any_pixel();
    }
    for (size_t x = 0; x < now.width; x++) {
        plain[x] = plain_blur(in + x - radius, 1, weights, radius);
    }
    kernels->horizontal(out, in, now.width, weights, radius);
    return compare("blur.horizontal", out, plain, now.width, 0);
}

static int check_blur_vertical(void)
{
    const struct blur_kernels *kernels = ISA_SELECT(blur_kernels, now.isa);
    size_t radius = simd_between(&now.random, 0, MAX_RADIUS), rows = 2 * radius + 2;
    float weights[2 * MAX_RADIUS + 1], plain[2 * MAX_WIDTH];
    float *in = row_at(IN, rows * now.stride), *out[2];
    const float *pointers[2 * MAX_RADIUS + 2];
    blur_weights_fill(weights, (uint32_t)(2 * radius + 1), 0.3f + simd_unit(&now.random) * 5);
    for (size_t i = 0; i < rows * now.stride; i++) {
        in[i] = any_pixel();
    }
    for (size_t row = 0; row < rows; row++) {
        pointers[row] = in + row * now.stride;
    }
    for (size_t i = 0; i < 2 * now.width; i++) {
        plain[i] = plain_blur(in + i / now.width * now.stride + i % now.width, now.stride, weights,
                              radius);
    }
    out[0] = row_at(OUT, now.stride);
    out[1] = row_at(OUT + 1, now.stride);
    kernels->vertical(out, pointers, now.width, weights, radius);
    float joined[2 * MAX_WIDTH];
    memcpy(joined, out[0], now.width * sizeof(float));
    memcpy(joined + now.width, out[1], now.width * sizeof(float));
    return compare("blur.vertical", joined, plain, 2 * now.width, 0);
}

// --- store --------------------------------------------------------------------------------------

static struct row_finish any_finish(void)
{
    struct row_finish finish = {.stream = simd_random(&now.random) % 2};
    finish.threshold = simd_random(&now.random) % 2 ? simd_unit(&now.random) : INFINITY;
    for (size_t channel = 0; channel < 3; channel++) {
        finish.mean[channel] = simd_unit(&now.random);
        finish.factor[channel] = 0.5f + simd_unit(&now.random) * 5;
    }
    return finish;
}

// Fills rows IN, of which `planes` count, and `plain` with what must come out.
static void plain_store(float *in[3], uint32_t planes, const struct row_finish *finish)
{
    any_pixels(in);
    for (size_t i = 0; i < now.width * 3; i++) {
        now.plain[i] = in[planes == 3 ? i % 3 : 0][i / 3];
    }
    if (finish->threshold < INFINITY) {
        color_solarize_c(now.plain, now.width, finish->threshold);
    }
    color_clip_c(now.plain, now.width);
    for (size_t i = 0; i < now.width * 3; i++) {
        now.plain[i] = (now.plain[i] - finish->mean[i % 3]) * finish->factor[i % 3];
    }
}

static int check_interleaved(void)
{
    const struct store_kernels *kernels = ISA_SELECT(store_kernels, now.isa);
    struct row_finish finish = any_finish();
    uint32_t planes = simd_random(&now.random) % 2 ? 3 : 1;
    float *in[3], *out = row_at(OUT, now.width * 3); // to the last byte
    plain_store(in, planes, &finish);
    const float *const from[3] = {in[0], in[1], in[2]};
    kernels->interleaved(out, from, planes, now.width, &finish);
    kernels->settle();
    return compare("store.interleaved", out, now.plain, now.width * 3, 0);
}

static int check_planar(void)
{
    const struct store_kernels *kernels = ISA_SELECT(store_kernels, now.isa);
    struct row_finish finish = any_finish();
    uint32_t planes = simd_random(&now.random) % 2 ? 3 : 1;
    float *in[3], *out[3];
    plain_store(in, planes, &finish);
    const float *const from[3] = {in[0], in[1], in[2]};
    for (size_t channel = 0; channel < 3; channel++) {
        out[channel] = row_at((enum place)(OUT + channel), now.width);
    }
    kernels->planar(out, from, planes, now.width, &finish);
    kernels->settle();
    return compare_planes("store.planar", out, 3, 0);
}

static int check_bytes(void)
{
    const struct store_kernels *kernels = ISA_SELECT(store_kernels, now.isa);
    const struct row_finish none = {.threshold = INFINITY, .factor = {1, 1, 1}};
    uint32_t planes = simd_random(&now.random) % 2 ? 3 : 1;
    float *in[3], values[MAX_WIDTH * 3];
    uint8_t *out = guard_last(&guards[OUT], now.width * 3);
    plain_store(in, planes, &none);
    const float *const from[3] = {in[0], in[1], in[2]};
    kernels->bytes(out, from, planes, now.width);
    for (size_t i = 0; i < now.width * 3; i++) {
        now.plain[i] = floorf(now.plain[i] * 255.0f + 0.5f);
        values[i] = (float)out[i];
    }
    return compare("store.bytes", values, now.plain, now.width * 3, 0);
}

// --- the suite ----------------------------------------------------------------------------------

static int (*const checks[])(void) = {
    check_vertical,        check_horizontal,    check_brightness,  check_grayscale,
    check_saturation,      check_hue,           check_both,        check_contrast,
    check_blur_horizontal, check_blur_vertical, check_interleaved, check_planar,
    check_bytes,
};
#define CHECKS (sizeof checks / sizeof checks[0])

static void open_guards(void)
{
    size_t rows = (size_t)(2 * MAX_RADIUS + 2) * MAX_STRIDE; // also more than a line and its slack
    for (size_t place = 0; place < PLACES; place++) {
        guards[place] = guard_open(rows * sizeof(float));
    }
}

static void close_guards(void)
{
    for (size_t place = 0; place < PLACES; place++) {
        guard_close(&guards[place]);
    }
}

static int check(long rounds, uint64_t seed)
{
    int failed = 0;
    now.random = seed;
    open_guards();
    for (long round = 0; round < rounds && !failed; round++) {
        now.width = simd_between(&now.random, 1, round % 2 ? 40 : MAX_WIDTH);
        now.stride = (now.width + ROW_LANES - 1) / ROW_LANES * ROW_LANES;
        for (size_t i = 0; i < CHECKS && !failed; i++) {
            failed = at_levels(checks[i]);
        }
    }
    close_guards();
    return failed;
}

// --- times --------------------------------------------------------------------------------------

#define SIZE  224
#define WIDTH 300 // of the crop

static struct {
    struct resize_table table;
    struct row_columns columns;
    int32_t first[SIZE];
    float weights[4][SIZE];
    float blur[2 * MAX_RADIUS + 1];
    const uint8_t *bytes[4];
    float *in[3], *out[3], *line[3], *pixels;
    const float *rows[2 * MAX_RADIUS + 2];
    struct row_step step;
    struct row_sums sums;
    struct row_finish finish;
} bench;

static const float *const *bench_in(void)
{
    return (const float *const *)bench.in;
}

static void open_bench(void)
{
    open_guards();
    now.random = 1;
    now.width = now.stride = SIZE;
    any_pixels(bench.in);
    resize_table_fill(&bench.table);
    bench.columns = (struct row_columns){
        bench.first,
        {bench.weights[0], bench.weights[1], bench.weights[2], bench.weights[3]},
        0,
        0};
    resize_plan_columns(&bench.columns, SIZE, WIDTH, SIZE, false, &bench.table);
    for (size_t plane = 0; plane < 3; plane++) {
        bench.out[plane] = guard_first(&guards[OUT + plane]);
        bench.line[plane] = (float *)guard_first(&guards[LINE + plane]) + 16;
        bench.finish.factor[plane] = 1;
    }
    for (size_t tap = 0; tap < 4; tap++) {
        bench.bytes[tap] = guards[IN + tap].first;
    }
    for (size_t row = 0; row < 2 * MAX_RADIUS + 2; row++) {
        bench.rows[row] = (float *)guard_first(&guards[LINE]) + row * SIZE;
    }
    bench.pixels = guard_first(&guards[OUT]);
    bench.finish.threshold = 0.5f;
    blur_weights_fill(bench.blur, 23, 2);
}

static void run_vertical(void *context)
{
    const struct resize_kernels *kernels = context;
    for (size_t plane = 0; plane < 3; plane++) {
        kernels->vertical(bench.line[plane], bench.bytes, bench.weights[0], WIDTH);
    }
}

static void run_horizontal(void *context)
{
    const struct resize_kernels *kernels = context;
    const float *const lines[3] = {bench.line[0], bench.line[1], bench.line[2]};
    kernels->horizontal(bench.out, lines, 3, &bench.columns);
}

static void run_color(void *context)
{
    const struct color_kernels *kernels = context;
    kernels->apply(bench.out, bench_in(), 3, SIZE, &bench.step, 1, NULL);
}

static void run_sums(void *context)
{
    const struct color_kernels *kernels = context;
    kernels->apply(bench.out, bench_in(), 3, SIZE, NULL, 0, &bench.sums);
}

static void run_blur_horizontal(void *context)
{
    const struct blur_kernels *kernels = context;
    for (size_t plane = 0; plane < 3; plane++) {
        kernels->horizontal(bench.out[plane], bench.line[plane] + 16, SIZE, bench.blur, 11);
    }
}

static void run_blur_vertical(void *context)
{
    const struct blur_kernels *kernels = context;
    float *const out[2] = {bench.out[0], bench.out[1]};
    for (size_t plane = 0; plane < 3; plane++) {
        kernels->vertical(out, bench.rows, SIZE, bench.blur, 11);
    }
}

static void run_interleaved(void *context)
{
    const struct store_kernels *kernels = context;
    kernels->interleaved(bench.pixels, bench_in(), 3, SIZE, &bench.finish);
}

static void run_planar(void *context)
{
    const struct store_kernels *kernels = context;
    kernels->planar(bench.out, bench_in(), 3, SIZE, &bench.finish);
}

static void run_bytes(void *context)
{
    const struct store_kernels *kernels = context;
    kernels->bytes((uint8_t *)bench.pixels, bench_in(), 3, SIZE);
}

static void time_color(enum isa isa)
{
    static const struct {
        const char *what;
        struct row_step step;
    } steps[] = {
        {"brightness", {.op = ROW_BRIGHTNESS, .amount = 0.1f}},
        {"contrast", {.op = ROW_CONTRAST, .amount = 1.1f, .mean = {0.5f, 0.5f, 0.5f}}},
        {"saturation", {.op = ROW_HSV, .amount = 1.1f}},
        {"saturation and hue", {.op = ROW_HSV, .amount = 1.1f, .turn = 0.1f}},
        {"grayscale", {.op = ROW_GRAYSCALE}},
    };
    const struct color_kernels *kernels = ISA_SELECT(color_kernels, isa);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        bench.step = steps[i].step;
        simd_report(steps[i].what, isa, SIZE, run_color, (void *)(uintptr_t)kernels);
    }
    simd_report("sums", isa, SIZE, run_sums, (void *)(uintptr_t)kernels);
}

static void time_level(enum isa isa)
{
    void *resize = (void *)(uintptr_t)ISA_SELECT(resize_kernels, isa);
    void *blur = (void *)(uintptr_t)ISA_SELECT(blur_kernels, isa);
    void *stored = (void *)(uintptr_t)ISA_SELECT(store_kernels, isa);
    simd_report("resize, vertical, from 300 px", isa, SIZE, run_vertical, resize);
    simd_report("resize, horizontal, from 300 px", isa, SIZE, run_horizontal, resize);
    time_color(isa);
    simd_report("blur, horizontal, 23 taps", isa, SIZE, run_blur_horizontal, blur);
    simd_report("blur, vertical, 23 taps", isa, 2 * SIZE, run_blur_vertical, blur);
    simd_report("store, interleaved", isa, SIZE, run_interleaved, stored);
    simd_report("store, planar", isa, SIZE, run_planar, stored);
    simd_report("store, bytes", isa, SIZE, run_bytes, stored);
}

static void time_rows(void)
{
    enum isa levels[ISA_COUNT];
    size_t count = simd_levels(levels);
    open_bench();
    for (size_t i = 0; i < count; i++) {
        time_level(levels[i]);
    }
    close_guards();
}

const struct simd_suite simd_suite_rows = {"rows", check, time_rows};
