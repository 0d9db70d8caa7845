// Gradients of losses and of whole BYOL steps against central differences. Those of single ops are
// in test_device_ops.c.
//
// The loss of a network has a kink wherever a ReLU or a maximum changes sides, and along any
// direction some of its values do. Their share of a central difference shrinks with the step, so
// a slope is measured with a step and with half of it, and extrapolated to none. Steps are chosen
// by how much the loss is to change: little, for the kinks, but a thousand times its rounding.
//
// BYOL_GRADIENTS_ALL=1 measures every tensor of every network, BYOL_GRADIENTS_VERBOSE=1 prints
// every ratio.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/byol_case.h"
#include "tests/support/device_rows.h"

static int mistakes;

// Uniform in [-1, 1).
static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) * 0x1p-23f - 1.0f;
}

static float *host_floats(size_t count)
{
    float *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

// --- losses ----------------------------------------------------------------------------------

#define ROWS   5u
#define WIDTH  17u
#define VALUES ((size_t)ROWS * WIDTH)
#define SCALE  0.25f

// Device memory of a loss: its two inputs one after the other, their gradients, a loss a row.
struct loss_rig {
    struct device *device;
    bool softmax;
    float *inputs, *gradients, *losses, *scale;
    int32_t *labels;
    float host[2 * VALUES]; // the inputs
};

static void *device_copy(struct device *device, const void *host, size_t bytes)
{
    void *memory;
    assert_int_equal(device->ops->allocate(device, &memory, bytes, NULL), STATUS_OK);
    assert_int_equal(device->ops->copy_in(device, memory, host, bytes), STATUS_OK);
    return memory;
}

// Row 0 of both inputs is so short that the regression loss takes its length for 1e-6, whatever it
// is: its gradient there knows no length.
static void loss_open(struct loss_rig *rig, struct device *device, bool softmax)
{
    const int32_t labels[ROWS] = {3, -1, 0, WIDTH - 1, 7};
    uint32_t seed = 1;
    *rig = (struct loss_rig){.device = device, .softmax = softmax};
    for (size_t i = 0; i < 2 * VALUES; i++) {
        rig->host[i] = noise(&seed) * (i % VALUES < WIDTH && !softmax ? 1e-7f : 1.0f);
    }
    rig->inputs = device_copy(device, rig->host, sizeof rig->host);
    rig->gradients = device_copy(device, rig->host, sizeof rig->host);
    rig->losses = device_copy(device, rig->host, ROWS * sizeof(float));
    rig->labels = device_copy(device, labels, sizeof labels);
    rig->scale = device_value(device, SCALE);
}

static void loss_close(struct loss_rig *rig)
{
    void *all[] = {rig->inputs, rig->gradients, rig->losses, rig->labels, rig->scale};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rig->device->ops->release(rig->device, all[i]);
    }
}

// What is differentiated: SCALE times the sum of the rows' losses.
static double loss_value(struct loss_rig *rig)
{
    struct device *device = rig->device;
    const struct device_ops *ops = device->ops;
    float rows[ROWS];
    double sum = 0;
    assert_int_equal(ops->copy_in(device, rig->inputs, rig->host, sizeof rig->host), STATUS_OK);
    assert_int_equal(rig->softmax
                         ? ops->softmax_loss(device, rig->inputs, rig->labels, ROWS, WIDTH,
                                             rig->scale, rig->losses, rig->gradients, NULL, NULL)
                         : ops->regression_loss(device, rig->inputs, rig->inputs + VALUES, ROWS,
                                                WIDTH, SCALE, rig->losses, rig->gradients,
                                                rig->gradients + VALUES),
                     STATUS_OK);
    assert_int_equal(ops->copy_out(device, rows, rig->losses, sizeof rows), STATUS_OK);
    for (size_t i = 0; i < ROWS; i++) {
        sum += (double)SCALE * (double)rows[i];
    }
    return sum;
}

static double central_difference(struct loss_rig *rig, size_t at, float step)
{
    float held = rig->host[at], above = held + step, below = held - step;
    rig->host[at] = above;
    double difference = loss_value(rig);
    rig->host[at] = below;
    difference -= loss_value(rig);
    rig->host[at] = held;
    return difference / ((double)above - (double)below);
}

// Every element of both inputs, or of the logits.
static void check_loss(struct device *device, bool softmax)
{
    struct loss_rig rig;
    float gradients[2 * VALUES];
    loss_open(&rig, device, softmax);
    loss_value(&rig);
    device->ops->copy_out(device, gradients, rig.gradients, sizeof gradients);
    for (size_t row = 0; row < (softmax ? ROWS : 2 * ROWS); row++) {
        double largest = 0;
        for (size_t i = row * WIDTH; i < (row + 1) * WIDTH; i++) {
            largest = fmax(largest, fabs((double)gradients[i]));
        }
        for (size_t i = row * WIDTH; i < (row + 1) * WIDTH; i++) {
            float step = row % ROWS == 0 && !softmax ? 0x1p-31f : 0x1p-8f;
            double found = central_difference(&rig, i, step);
            if (!(fabs(found - (double)gradients[i]) <= 1e-3 * largest)) {
                print_error("%s, %s: gradient %zu of row %zu is %g, by differences %g\n",
                            device->ops->name, softmax ? "softmax" : "regression", i % WIDTH, row,
                            (double)gradients[i], found);
                mistakes++;
            }
        }
    }
    loss_close(&rig);
}

static void test_losses(void **state)
{
    (void)state;
    mistakes = 0;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device;
        assert_int_equal(device_open(&device, (*ops)->name, 2, DEVICE_F32, NULL), STATUS_OK);
        check_loss(device, false);
        check_loss(device, true);
        device_close(&device);
    }
    assert_int_equal(mistakes, 0);
}

// --- whole networks --------------------------------------------------------------------------

// A piece of the flat parameter block and a direction in it.
struct piece {
    const char *name;
    uint64_t first, count;
    const float *direction;
    bool classifier; // learns from the labels, all others from the regression
};

struct slope {
    double expected; // by the gradient
    double found;
};

static double mean_loss(const struct byol_case *byol_case, size_t rows)
{
    float losses[2 * 64];
    double sum = 0;
    assert_in_range(rows, 1, sizeof losses / sizeof *losses);
    assert_int_equal(byol_case->device->ops->copy_out(
                         byol_case->device, losses, byol_case->byol->losses, rows * sizeof *losses),
                     STATUS_OK);
    for (size_t i = 0; i < rows; i++) {
        sum += (double)losses[i];
    }
    return sum / (double)byol_case->byol->config.batch;
}

// The loss of the online network as its parameters are now; the target's projections are those of
// the last step.
static double loss_now(const struct byol_case *byol_case, bool classifier)
{
    struct byol *byol = byol_case->byol;
    struct device *device = byol_case->device;
    uint32_t pairs = byol->micro, width = projection_width(byol);
    size_t half = (size_t)pairs * width;
    assert_int_equal(network_forward(byol->online, byol->online_params, byol->online_state,
                                     byol->images, OP_TRAIN, NULL),
                     STATUS_OK);
    if (classifier) {
        // The scale is that of gradients, which are not wanted here.
        assert_int_equal(device->ops->softmax_loss(device, network_output(byol->online, "logits"),
                                                   byol->labels, pairs, BYOL_CASE_CLASSES,
                                                   byol->rates + BYOL_LABELLED_SCALE, byol->losses,
                                                   NULL, NULL, NULL),
                         STATUS_OK);
        return mean_loss(byol_case, pairs);
    }
    const float *prediction = network_output(byol->online, "prediction");
    const float *projection = network_output(byol->target, "projection");
    device->ops->regression_loss(device, prediction, projection + half, pairs, width, 1.0f,
                                 byol->losses, NULL, NULL);
    device->ops->regression_loss(device, prediction + half, projection, pairs, width, 1.0f,
                                 byol->losses + pairs, NULL, NULL);
    return mean_loss(byol_case, 2 * (size_t)pairs);
}

// Both change of the loss from one side to the other, so that the rounding of the parameters on
// their way does not count.
static struct slope move(const struct byol_case *byol_case, const struct piece *piece, double step)
{
    struct device *device = byol_case->device;
    float *to = byol_case->byol->online_params + piece->first;
    const float *from = byol_case->params + piece->first;
    size_t bytes = (size_t)piece->count * sizeof(float);
    float *above = host_floats(piece->count), *below = host_floats(piece->count);
    struct slope slope = {0};
    for (uint64_t i = 0; i < piece->count; i++) {
        double way = step * (double)piece->direction[i];
        above[i] = (float)((double)from[i] + way);
        below[i] = (float)((double)from[i] - way);
        slope.expected +=
            ((double)above[i] - (double)below[i]) * (double)byol_case->gradients[piece->first + i];
    }
    device->ops->copy_in(device, to, above, bytes);
    slope.found = loss_now(byol_case, piece->classifier);
    device->ops->copy_in(device, to, below, bytes);
    slope.found -= loss_now(byol_case, piece->classifier);
    device->ops->copy_in(device, to, from, bytes);
    free(above);
    free(below);
    return slope;
}

static double length_of(const float *values, uint64_t count)
{
    double squares = 0;
    for (uint64_t i = 0; i < count; i++) {
        squares += (double)values[i] * (double)values[i];
    }
    return sqrt(squares);
}

// How far to go: until the loss changes by this much, from one side to the other, unless the tensor
// had to move by more than this share of its length.
#define CHANGE  0.001
#define LARGEST 0.002

// Numeric over analytic, extrapolated; `slope` is how the loss should change along the direction.
static double ratio(const struct byol_case *byol_case, const struct piece *piece, double slope)
{
    double length = length_of(byol_case->params + piece->first, piece->count);
    double step =
        fmin(CHANGE / (2 * slope), LARGEST * length / length_of(piece->direction, piece->count));
    struct slope whole = move(byol_case, piece, step);
    struct slope half = move(byol_case, piece, step / 2);
    double result = 2 * half.found / half.expected - whole.found / whole.expected;
    if (getenv("BYOL_GRADIENTS_VERBOSE") != NULL) {
        print_message("  %-60s %.4f, %.4f: %.4f\n", piece->name, whole.found / whole.expected,
                      half.found / half.expected, result);
    }
    return result;
}

// Bounds. A single tensor's ratio keeps some noise of its kinks, most in the first layers of deep
// networks; all tensors together have little. Along random directions slopes are so small that
// kinks weigh more: there the misses are compared with the spread of the slopes.
#define RATIO_BOUND  0.15
#define SPREAD_BOUND 0.03 // root of the mean square
#define RANDOM_BOUND 0.2

struct network_check {
    struct byol_model model;
    uint32_t every; // which tensors are measured: one in so many
};

#define R18   MODEL_RESNET18
#define R50   MODEL_RESNET50
#define SMALL MODEL_STEM_SMALL
#define POOL  MODEL_STEM_IMAGENET

// Name, encoder, stem, norm, width, size, v2, standardised weights, batch; one tensor in so many.
// clang-format off
static const struct network_check checks[] = {
    {{"tiny", MODEL_TINY, SMALL, MODEL_NORM_BATCH, 0.5, 16, 0, 0, 8}, 1},
    {{"ResNet-18", R18, SMALL, MODEL_NORM_BATCH, 0.5, 32, 0, 0, 8}, 5},
    {{"ResNet-18 v2", R18, SMALL, MODEL_NORM_BATCH, 0.25, 32, 1, 0, 8}, 5},
    {{"ResNet-50", R50, POOL, MODEL_NORM_BATCH, 0.5, 32, 0, 0, 8}, 12},
    {{"ResNet-50 v2", R50, POOL, MODEL_NORM_BATCH, 0.25, 32, 1, 0, 8}, 12},
    {{"group norm, standardised weights", R18, SMALL, MODEL_NORM_GROUP, 0.25, 32, 0, 1, 8}, 5},
    {{"layer norm", R18, SMALL, MODEL_NORM_LAYER, 0.25, 32, 0, 0, 8}, 5},
    {{"affine", R18, SMALL, MODEL_NORM_AFFINE, 0.25, 32, 0, 0, 8}, 5},
};
// clang-format on

static void judge(const struct network_check *check, const char *what, double found, double bound)
{
    if (!(fabs(found) <= bound)) {
        print_error("%s: %s is off by %.4f, bound %g\n", check->model.name, what, found, bound);
        mistakes++;
    }
}

// A bias before a batch normalisation changes nothing; its gradient is what rounding left.
static bool without_effect(const struct byol_case *byol_case, const struct graph_param *param)
{
    return byol_case->byol->config.model.norm == MODEL_NORM_BATCH && param->kind == PARAM_BIAS &&
           strstr(param->name, "/linear/b") != NULL;
}

static void check_without_effect(const struct network_check *check, struct byol_case *byol_case,
                                 struct piece *piece)
{
    struct slope slope = move(byol_case, piece, 0.25);
    judge(check, piece->name, slope.found, 1e-5);
    judge(check, piece->name, slope.expected, 1e-5);
}

struct misses {
    double squares;
    size_t count;
};

static void judge_ratio(const struct network_check *check, const struct byol_case *byol_case,
                        const struct piece *piece, double slope, struct misses *misses)
{
    double miss = ratio(byol_case, piece, slope) - 1;
    judge(check, piece->name, miss, RATIO_BOUND);
    misses->squares += miss * miss;
    misses->count++;
}

// Along the gradient, which its large elements rule, and along a random direction that goes the
// gradient's way in each element, which all elements rule alike.
static void check_tensor(const struct network_check *check, struct byol_case *byol_case,
                         const struct graph_param *param, struct misses *misses)
{
    float *direction = host_floats(param->count);
    const float *gradient = byol_case->gradients + param->offset;
    double length = length_of(gradient, param->count), slope = 0;
    struct piece piece = {param->name, param->offset, param->count, gradient,
                          strncmp(param->name, "classifier/", 11) == 0};
    uint32_t seed = 7;
    for (uint64_t i = 0; i < param->count; i++) {
        float size = 1 + noise(&seed);
        direction[i] = gradient[i] < 0 ? -size : size;
        slope += (double)direction[i] * (double)gradient[i];
    }
    if (without_effect(byol_case, param)) {
        piece.direction = direction;
        check_without_effect(check, byol_case, &piece);
    } else {
        assert_true(length > 0);
        judge_ratio(check, byol_case, &piece, length * length, misses);
        piece.direction = direction;
        judge_ratio(check, byol_case, &piece, slope, misses);
    }
    free(direction);
}

#define RANDOM 6

// A step of equal relative size in each tensor, up or down by chance in each element. Returns the
// spread of slopes along such directions.
static double draw_direction(const struct byol_case *byol_case, float *direction, uint32_t seed)
{
    double variance = 0;
    for (size_t i = 0; i < graph_param_count(byol_case->graph); i++) {
        const struct graph_param *param = graph_param_at(byol_case->graph, i);
        double length = length_of(byol_case->params + param->offset, param->count);
        double size = length / sqrt((double)param->count);
        size = strncmp(param->name, "classifier/", 11) == 0 ? 0 : size;
        for (uint64_t k = param->offset; k < param->offset + param->count; k++) {
            direction[k] = (float)(noise(&seed) < 0 ? -size : size);
        }
        double gradient = length_of(byol_case->gradients + param->offset, param->count);
        variance += gradient * gradient * size * size;
    }
    return sqrt(variance);
}

// The online network and its heads as a whole.
static void check_random_directions(const struct network_check *check, struct byol_case *byol_case)
{
    uint64_t count = graph_param_floats(byol_case->graph);
    float *direction = host_floats(count);
    double squares = 0;
    for (uint32_t i = 0; i < RANDOM; i++) {
        double spread = draw_direction(byol_case, direction, i);
        const struct piece piece = {"all", 0, count, direction, false};
        struct slope slope = move(byol_case, &piece, CHANGE / 8 / spread);
        double miss = (slope.found - slope.expected) / (CHANGE / 4);
        squares += miss * miss / RANDOM;
        if (getenv("BYOL_GRADIENTS_VERBOSE") != NULL) {
            print_message("  random direction: %.4f, miss %.4f\n", slope.expected / (CHANGE / 4),
                          miss);
        }
    }
    judge(check, "random directions", sqrt(squares), RANDOM_BOUND);
    free(direction);
}

static void check_network(struct device *device, const struct network_check *check)
{
    struct byol_case byol_case;
    byol_case_open(&byol_case, device, &check->model);
    byol_case_step(&byol_case);
    if (getenv("BYOL_GRADIENTS_VERBOSE") != NULL) {
        print_message("%s on %s, loss %.4f\n", check->model.name, device->ops->name,
                      byol_case.metrics.loss);
    }
    // The loss that is differentiated is the step's.
    const struct method_metrics *metrics = &byol_case.metrics;
    judge(check, "loss", loss_now(&byol_case, false) - metrics->representation, 1e-6);
    judge(check, "classifier loss", loss_now(&byol_case, true) - metrics->classification, 1e-6);
    struct misses misses = {0};
    size_t every = getenv("BYOL_GRADIENTS_ALL") != NULL ? 1 : check->every;
    for (size_t i = 0; i < graph_param_count(byol_case.graph); i += every) {
        check_tensor(check, &byol_case, graph_param_at(byol_case.graph, i), &misses);
    }
    judge(check, "all tensors", sqrt(misses.squares / (double)misses.count), SPREAD_BOUND);
    check_random_directions(check, &byol_case);
    byol_case_close(&byol_case);
}

// Only the smallest on slow devices.
static void test_networks(void **state)
{
    (void)state;
    mistakes = 0;
    for (const struct device_ops *const *ops = device_rows(); *ops; ops++) {
        struct device *device;
        assert_int_equal(device_open(&device, (*ops)->name, 1, DEVICE_F32, NULL), STATUS_OK);
        size_t count = device_is_slow(device) ? 1 : sizeof checks / sizeof *checks;
        for (size_t i = 0; i < count; i++) {
            check_network(device, &checks[i]);
        }
        device_close(&device);
    }
    assert_int_equal(mistakes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
