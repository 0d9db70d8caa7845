// Golden group distributions: 10^5 draws per view against samples of the reference's own sampler.
#include "tests/support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "augment/view.h"

#define DRAWS   100000
#define Z_LIMIT 4.5
// Two samples of one distribution lie further apart than this times sqrt((n + m) / (n m)) once in
// ten thousand times (Kolmogorov-Smirnov).
#define KS_LIMIT 2.225

static struct view_params drawn[DRAWS];

static void draw_all(uint32_t view, uint32_t width, uint32_t height)
{
    struct recipe recipe;
    assert_int_equal(recipe_builtin("byol", &recipe, NULL), STATUS_OK);
    for (uint32_t i = 0; i < DRAWS; i++) {
        struct view_key key = {.seed = 7, .record = i / 4, .epoch = i % 4, .view = view};
        view_draw(&recipe, key, width, height, &drawn[i]);
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The largest distance between the two empirical distribution functions; sorts both.
static double ks_distance(double *a, size_t a_count, double *b, size_t b_count)
{
    qsort(a, a_count, sizeof *a, compare_doubles);
    qsort(b, b_count, sizeof *b, compare_doubles);
    double worst = 0;
    size_t i = 0, j = 0;
    while (i < a_count && j < b_count) {
        double value = fmin(a[i], b[j]);
        while (i < a_count && a[i] <= value) {
            i++;
        }
        while (j < b_count && b[j] <= value) {
            j++;
        }
        worst = fmax(worst, fabs((double)i / (double)a_count - (double)j / (double)b_count));
    }
    return worst;
}

static void check_ks(const char *name, const char *quantity, double *ours, size_t count,
                     double *theirs, size_t their_count)
{
    double n = (double)count, m = (double)their_count;
    double limit = KS_LIMIT * sqrt((n + m) / (n * m));
    double distance = ks_distance(ours, count, theirs, their_count);
    if (!(distance < limit)) {
        fail_msg("%s: %s is distributed otherwise: D = %.5f, allowed %.5f", name, quantity,
                 distance, limit);
    }
}

// --- crops --------------------------------------------------------------------------------------

struct crop_case {
    const char *name;
    uint32_t width, height;
    const int32_t *rows; // [count][4]: y, x, h, w
    size_t count;
};

typedef double (*crop_quantity)(double y, double x, double h, double w);

static double crop_y(double y, double x, double h, double w)
{
    (void)x, (void)h, (void)w;
    return y;
}

static double crop_x(double y, double x, double h, double w)
{
    (void)y, (void)h, (void)w;
    return x;
}

static double crop_h(double y, double x, double h, double w)
{
    (void)y, (void)x, (void)w;
    return h;
}

static double crop_w(double y, double x, double h, double w)
{
    (void)y, (void)x, (void)h;
    return w;
}

static double crop_area(double y, double x, double h, double w)
{
    (void)y, (void)x;
    return h * w;
}

static double crop_aspect(double y, double x, double h, double w)
{
    (void)y, (void)x;
    return w / h;
}

static void check_crop_quantity(const struct crop_case *crop, const char *name,
                                crop_quantity quantity)
{
    double *ours = malloc(DRAWS * sizeof *ours), *theirs = malloc(crop->count * sizeof *theirs);
    assert_non_null(ours);
    assert_non_null(theirs);
    for (size_t i = 0; i < DRAWS; i++) {
        const struct image_window *window = &drawn[i].crop;
        ours[i] = quantity(window->y, window->x, window->height, window->width);
    }
    for (size_t i = 0; i < crop->count; i++) {
        const int32_t *row = crop->rows + i * 4;
        theirs[i] = quantity(row[0], row[1], row[2], row[3]);
    }
    check_ks(crop->name, name, ours, DRAWS, theirs, crop->count);
    free(ours);
    free(theirs);
}

// Shares of crops that reach the full side, compared as two proportions.
static void check_clamped(const struct crop_case *crop, const char *side, bool is_width)
{
    double ours = 0, theirs = 0, n = DRAWS, m = (double)crop->count;
    for (size_t i = 0; i < DRAWS; i++) {
        ours +=
            is_width ? drawn[i].crop.width == crop->width : drawn[i].crop.height == crop->height;
    }
    for (size_t i = 0; i < crop->count; i++) {
        theirs += is_width ? (uint32_t)crop->rows[i * 4 + 3] == crop->width
                           : (uint32_t)crop->rows[i * 4 + 2] == crop->height;
    }
    double share = (ours + theirs) / (n + m);
    double spread = sqrt(share * (1 - share) * (1 / n + 1 / m));
    double z = spread > 0 ? (ours / n - theirs / m) / spread : 0;
    print_message("golden: %s: full %s %.4f, reference %.4f, z = %.2f\n", crop->name, side,
                  ours / n, theirs / m, z);
    assert_true(fabs(z) < Z_LIMIT);
}

static void check_inside(const struct crop_case *crop)
{
    for (size_t i = 0; i < DRAWS; i++) {
        const struct image_window *window = &drawn[i].crop;
        assert_true(window->width >= 1 && window->height >= 1);
        assert_true(window->x + window->width <= crop->width);
        assert_true(window->y + window->height <= crop->height);
    }
}

static void check_crops(const char *folder, const struct table *index, size_t row)
{
    struct npy samples = golden_array(folder, table_cell(index, row, "files"));
    assert_int_equal(samples.type, NPY_INT32);
    assert_int_equal(samples.count, (size_t)table_int(table_cell(index, row, "rows")) * 4);
    struct crop_case crop = {
        .name = table_cell(index, row, "case"),
        .width = (uint32_t)table_int(table_cell(index, row, "image_width")),
        .height = (uint32_t)table_int(table_cell(index, row, "image_height")),
        .rows = samples.data,
        .count = samples.count / 4,
    };
    for (uint32_t view = 0; view < 2; view++) {
        draw_all(view, crop.width, crop.height);
        check_inside(&crop);
        check_crop_quantity(&crop, "y", crop_y);
        check_crop_quantity(&crop, "x", crop_x);
        check_crop_quantity(&crop, "h", crop_h);
        check_crop_quantity(&crop, "w", crop_w);
        check_crop_quantity(&crop, "area", crop_area);
        check_crop_quantity(&crop, "aspect", crop_aspect);
        check_clamped(&crop, "width", true);
        check_clamped(&crop, "height", false);
    }
    npy_free(&samples);
}

// --- flags and strengths ------------------------------------------------------------------------

enum quantity { BRIGHTNESS, CONTRAST, SATURATION, HUE, SIGMA, QUANTITIES };
static const char *const quantity_names[QUANTITIES] = {"brightness", "contrast", "saturation",
                                                       "hue", "sigma"};

static double quantity_of(const struct view_params *params, enum quantity which)
{
    const float values[QUANTITIES] = {params->brightness, params->contrast, params->saturation,
                                      params->hue, params->sigma};
    return (double)values[which];
}

// Strengths count only where their operation applies.
static bool quantity_used(const struct view_params *params, enum quantity which)
{
    return which == SIGMA ? params->blur : params->jitter;
}

static bool parse_quantity(const char *text, enum quantity *which, int *bin)
{
    char name[32];
    *bin = -1;
    if (sscanf(text, "hist20_%31[a-z]_bin%d", name, bin) != 2 &&
        sscanf(text, "range_%31[a-z]", name) != 1) {
        return false;
    }
    for (int i = 0; i < QUANTITIES; i++) {
        if (strcmp(name, quantity_names[i]) == 0) {
            *which = (enum quantity)i;
            return true;
        }
    }
    return false;
}

static void check_count(const char *view, const char *event, double count, double n, double p)
{
    if (p <= 0 || p >= 1) {
        assert_true(count == n * p);
        return;
    }
    double z = (count - n * p) / sqrt(n * p * (1 - p));
    if (!(fabs(z) < Z_LIMIT)) {
        fail_msg("%s: %s happened %g times in %g, z = %.2f", view, event, count, n, z);
    }
}

static void check_bin(const char *view, const char *event, enum quantity which, int bin,
                      const double range[2], double p)
{
    double n = 0, count = 0;
    for (size_t i = 0; i < DRAWS; i++) {
        if (quantity_used(&drawn[i], which)) {
            double share = (quantity_of(&drawn[i], which) - range[0]) / (range[1] - range[0]);
            n++;
            count += (int)floor(share * 20) == bin;
        }
    }
    check_count(view, event, count, n, p);
}

// All of them inside the range (up to float rounding), and some near both of its ends.
static void check_range(const char *event, enum quantity which, const double range[2])
{
    double least = INFINITY, most = -INFINITY, slack = (range[1] - range[0]) * 1e-3;
    for (size_t i = 0; i < DRAWS; i++) {
        if (quantity_used(&drawn[i], which)) {
            least = fmin(least, quantity_of(&drawn[i], which));
            most = fmax(most, quantity_of(&drawn[i], which));
        }
    }
    if (!(least >= range[0] - 1e-6 && least < range[0] + 2 * slack && most <= range[1] + 1e-6 &&
          most > range[1] - 2 * slack)) {
        fail_msg("%s: drawn within %g to %g", event, least, most);
    }
}

static bool is_single(const struct view_params *params, const char *event)
{
    return (strcmp(event, "p_flip") == 0 && params->flip) ||
           (strcmp(event, "p_jitter") == 0 && params->jitter) ||
           (strcmp(event, "p_gray") == 0 && params->grayscale) ||
           (strcmp(event, "p_blur") == 0 && params->blur) ||
           (strcmp(event, "p_solarize") == 0 && params->solarize);
}

static void check_flags(const char *view, const char *event, double p)
{
    static const char joint[] = "joint_flip%d_jitter%d_gray%d_blur%d_solarize%d";
    int flip, jitter, gray, blur, solarize;
    bool is_joint = sscanf(event, joint, &flip, &jitter, &gray, &blur, &solarize) == 5;
    if (!is_joint && strncmp(event, "p_", 2) != 0) {
        fail_msg("unknown event '%s'", event);
    }
    double count = 0;
    for (size_t i = 0; i < DRAWS; i++) {
        const struct view_params *params = &drawn[i];
        count += is_joint ? params->flip == flip && params->jitter == jitter &&
                                params->grayscale == gray && params->blur == blur &&
                                params->solarize == solarize
                          : is_single(params, event);
    }
    check_count(view, event, count, DRAWS, p);
}

static void check_order(const char *view, const char *event, double p)
{
    const char *digits = event + strlen("order_");
    double n = 0, count = 0;
    for (size_t i = 0; i < DRAWS; i++) {
        if (drawn[i].jitter) {
            const uint8_t *order = drawn[i].order;
            n++;
            count += order[0] == digits[0] - '0' && order[1] == digits[1] - '0' &&
                     order[2] == digits[2] - '0' && order[3] == digits[3] - '0';
        }
    }
    check_count(view, event, count, n, p);
}

static size_t check_event(const struct table *observed, size_t row, const char *view,
                          double ranges[QUANTITIES][2])
{
    const char *event = table_cell(observed, row, "event");
    const char *expected = table_cell(observed, row, "expected");
    double p = strtod(expected, NULL);
    enum quantity which;
    int bin;
    if (strcmp(table_cell(observed, row, "view"), view) != 0) {
        return 0;
    }
    if (!parse_quantity(event, &which, &bin)) {
        (strncmp(event, "order_", 6) == 0 ? check_order : check_flags)(view, event, p);
    } else if (bin < 0) {
        double *range = ranges[which];
        assert_int_equal(sscanf(expected, "uniform[%lf,%lf)", &range[0], &range[1]), 2);
        check_range(event, which, range);
    } else {
        check_bin(view, event, which, bin, ranges[which], p);
    }
    return 1;
}

// Golden strengths of the draws that used them, against ours.
static void check_strengths(const char *folder, const char *files, const char *view)
{
    char flags_file[128], params_file[128];
    assert_int_equal(sscanf(files, "%127[^,],%127s", flags_file, params_file), 2);
    struct npy flags = golden_array(folder, flags_file), params = golden_array(folder, params_file);
    assert_int_equal(flags.count / 9, params.count / 5);
    const int32_t *flag = flags.data;
    const float *value = params.data;
    size_t rows = params.count / 5;
    double *ours = malloc(DRAWS * sizeof *ours), *theirs = malloc(rows * sizeof *theirs);
    assert_non_null(ours);
    assert_non_null(theirs);
    for (int which = 0; which < QUANTITIES; which++) {
        size_t count = 0, their_count = 0;
        for (size_t i = 0; i < DRAWS; i++) {
            if (quantity_used(&drawn[i], (enum quantity)which)) {
                ours[count++] = quantity_of(&drawn[i], (enum quantity)which);
            }
        }
        for (size_t i = 0; i < rows; i++) {
            if (flag[i * 9 + (which == SIGMA ? 3 : 1)]) {
                theirs[their_count++] = (double)value[i * 5 + (size_t)which];
            }
        }
        check_ks(view, quantity_names[which], ours, count, theirs, their_count);
    }
    free(ours);
    free(theirs);
    npy_free(&flags);
    npy_free(&params);
}

static void check_draws(const char *folder, const struct table *index, size_t row)
{
    const char *view = strstr(table_cell(index, row, "case"), "view");
    assert_non_null(view);
    draw_all((uint32_t)(view[4] - '1'), 500, 375);
    char path[560];
    struct table observed;
    snprintf(path, sizeof path, "%s/draws_observed.tsv", folder);
    table_read(&observed, path);
    double ranges[QUANTITIES][2] = {{0}};
    size_t events = 0;
    for (size_t i = 0; i < observed.rows; i++) {
        events += check_event(&observed, i, view, ranges);
    }
    print_message("golden: %s: %zu events of %d draws within |z| < %.1f\n", view, events, DRAWS,
                  Z_LIMIT);
    assert_true(events > 0);
    table_free(&observed);
    check_strengths(folder, table_cell(index, row, "files"), view);
}

static void check_row(const char *folder, const struct table *index, size_t row)
{
    const char *kind = table_cell(index, row, "kind");
    if (strcmp(kind, "crop") == 0) {
        check_crops(folder, index, row);
    } else if (strcmp(kind, "augment") == 0) {
        check_draws(folder, index, row);
    } else {
        fail_msg("%s: unknown kind '%s'", folder, kind);
    }
}

static void test_distributions(void **state)
{
    (void)state;
    golden_each("distributions", check_row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_distributions)};
    return cmocka_run_group_tests_name("golden_distributions", tests, NULL, NULL);
}
