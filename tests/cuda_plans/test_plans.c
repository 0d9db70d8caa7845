// Every convolution of every network has a plan on the GPU that is here, else on an H100: one that
// repeats its bits, in bf16 and in plain float32, for all three passes, within the workspace that
// is allowed. cuDNN makes plans from a recorded description of the GPU (tests/data/h100.json), so
// neither GPU nor driver is needed; what plans compute, and how fast, only a GPU can tell.
// BYOL_PLANS_VERBOSE=1 prints the description that was used.
#include "trainer/cuda/conv_candidates.h"

#include "formats/file.h"
#include "trainer/cuda/lanes.h"
#include "trainer/cuda/weights_math.h"
#include "trainer/net/model.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define IMAGES 512 // 256 pairs

static struct error error;
static cudnnBackendDescriptor_t gpu; // as cuDNN describes it

// cuDNN loads NVRTC for every list of engines and unloads it again; held here it stays, and the
// suite takes a third of the time. It is no matter if there is none.
static void hold_compiler(void)
{
    char name[32];
    snprintf(name, sizeof name, "libnvrtc.so.%d", CUDART_VERSION / 1000);
    dlopen(name, RTLD_LAZY);
}

// Without a driver cuDNN's own attempts to open cuBLASLt leak.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libcublasLt\n";
}

// The GPU's that is here; false: there is none that cuDNN can use.
static bool describe_present(void)
{
    cudnnHandle_t handle = NULL;
    bool present = cudnnCreate(&handle) == CUDNN_STATUS_SUCCESS &&
                   cudnn_properties_of_handle(&gpu, handle, &error) == STATUS_OK;
    if (handle != NULL) {
        cudnnDestroy(handle);
    }
    return present;
}

static enum status describe_recorded(void)
{
    uint8_t *json = NULL;
    size_t len = 0;
    enum status status = file_read_all("tests/data/h100.json", 1 << 20, &json, &len, &error);
    if (status == STATUS_OK) {
        status = cudnn_properties_of_json(&gpu, (const char *)json, &error);
    }
    free(json);
    return status;
}

static void print_description(void)
{
    char *json = NULL;
    if (getenv("BYOL_PLANS_VERBOSE") != NULL &&
        cudnn_properties_json(gpu, &json, &error) == STATUS_OK) {
        printf("%s\n", json);
    }
    free(json);
}

static int open_gpu(void **state)
{
    (void)state;
    hold_compiler();
    if (cudnnGetVersion() < CUDNN_OLDEST) {
        printf("skipped: cuDNN %zu is too old to plan without a GPU\n", cudnnGetVersion());
        return 0;
    }
    bool present = describe_present();
    printf("plans for %s\n", present ? "the GPU of this machine" : "a recorded H100");
    enum status status = present ? STATUS_OK : describe_recorded();
    if (status != STATUS_OK) {
        printf("%s: %s\n", error.path, error.reason);
        return -1;
    }
    print_description();
    return 0;
}

static int close_gpu(void **state)
{
    (void)state;
    cudnn_drop(&gpu);
    return 0;
}

static void need_gpu(void)
{
    if (gpu == NULL) {
        skip();
    }
}

#define must(call)                                                                                 \
    do {                                                                                           \
        if ((call) != STATUS_OK) {                                                                 \
            fail_msg("%s", error.reason);                                                          \
        }                                                                                          \
    } while (0)

// --- one convolution -----------------------------------------------------------------------------

struct totals {
    size_t plans, alone; // all that may be used; convolutions that have one only
    size_t compiled;     // convolutions whose engine is compiled when it is planned
    size_t largest, sum; // workspace of the first plans
    size_t engines[CUDA_CONV_PASSES][2][256];
};

static bool compiled_later(const struct cudnn_engine *engine)
{
    return (engine->behaviour & 1u << CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != 0;
}

// Of all that cuDNN suggests, whether any would do and is compiled already.
static bool ready_made(const struct cudnn_graph *graph, bool strict)
{
    static struct cudnn_engine engines[128];
    const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    for (size_t m = 0; m < 2; m++) {
        size_t count = 0;
        must(cudnn_graph_engines(graph, modes[m], engines, 128, &count, &error));
        for (size_t i = 0; i < count; i++) {
            struct cudnn_plan plan;
            if (!conv_engine_admitted(&engines[i], strict) || compiled_later(&engines[i]) ||
                cudnn_plan_open(&plan, graph, &engines[i], NULL) != STATUS_OK) {
                continue;
            }
            size_t workspace = plan.workspace;
            cudnn_plan_close(&plan);
            if (workspace <= CONV_WORKSPACE) {
                return true;
            }
        }
    }
    return false;
}

static void check_notes(const struct cudnn_plan *plan, bool strict)
{
    const unsigned tensor_core = 1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
                   varying = 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    if ((plan->engine.numerical & varying) != 0 ||
        (strict && (plan->engine.numerical & tensor_core) != 0) ||
        plan->workspace > CONV_WORKSPACE) {
        fail_msg("%s: engine %lld, notes %x, workspace %zu", plan->name,
                 (long long)plan->engine.number, plan->engine.numerical, plan->workspace);
    }
}

// The text of a plan makes the same plan again: in cuDNN's own description of both.
static void check_text(const struct cudnn_plan *plan, const struct cudnn_graph *graph)
{
    char text[CUDNN_ENGINE_TEXT], *first = NULL, *second = NULL;
    struct cudnn_engine engine;
    struct cudnn_plan again;
    cudnn_engine_text(&plan->engine, text);
    assert_true(cudnn_engine_parse(&engine, text));
    must(cudnn_plan_open(&again, graph, &engine, &error));
    assert_int_equal(again.engine.numerical, plan->engine.numerical);
    assert_int_equal(again.engine.behaviour, plan->engine.behaviour);
    assert_int_equal(again.workspace, plan->workspace);
    must(cudnn_plan_json(plan, &first, &error));
    must(cudnn_plan_json(&again, &second, &error));
    assert_string_equal(first, second);
    free(first);
    free(second);
    cudnn_plan_close(&again);
}

static void check_pass(const struct cuda_conv *conv, enum cuda_conv_pass pass,
                       struct totals *totals)
{
    const bool strict = !conv->half;
    struct cudnn_graph graph;
    struct conv_candidates candidates;
    must(cudnn_conv_graph_open(&graph, gpu, conv, pass, &error));
    must(conv_candidates_open(&candidates, &graph, strict, &error));
    for (size_t i = 0; i < candidates.count; i++) {
        check_notes(&candidates.plans[i], strict);
        if (compiled_later(&candidates.plans[i].engine) && ready_made(&graph, strict)) {
            fail_msg("%s: compiled when planned, though others are not", graph.name);
        }
    }
    const struct cudnn_plan *first = &candidates.plans[0];
    check_text(first, &graph);
    totals->plans += candidates.count;
    totals->alone += candidates.count == 1;
    totals->compiled += compiled_later(&first->engine);
    totals->sum += first->workspace;
    totals->largest = first->workspace > totals->largest ? first->workspace : totals->largest;
    totals->engines[pass][strict][first->engine.number & 255]++;
    conv_candidates_close(&candidates);
    cudnn_graph_close(&graph);
}

static void check_conv(struct cuda_conv conv, struct totals *totals)
{
    for (int half = 0; half < 2; half++) {
        conv.half = half != 0;
        for (int pass = 0; pass < CUDA_CONV_PASSES; pass++) {
            check_pass(&conv, (enum cuda_conv_pass)pass, totals);
        }
    }
}

static void print_totals(const struct totals *totals, size_t convolutions)
{
    static const char *const passes[] = {"forward", "data", "weights"};
    printf("%zu convolutions: %zu plans may be used, %zu have one only, %zu are compiled when "
           "planned; workspace %.1f MiB at most, %.1f MiB in all\n",
           convolutions, totals->plans, totals->alone, totals->compiled,
           (double)totals->largest / (1 << 20), (double)totals->sum / (1 << 20));
    for (int pass = 0; pass < CUDA_CONV_PASSES; pass++) {
        for (int strict = 0; strict < 2; strict++) {
            printf("  %s, %s: engine", passes[pass], strict ? "plain f32" : "bf16");
            for (int engine = 0; engine < 256; engine++) {
                if (totals->engines[pass][strict][engine] > 0) {
                    printf(" %d (%zu)", engine, totals->engines[pass][strict][engine]);
                }
            }
            printf("\n");
        }
    }
}

// --- the convolutions of a network ---------------------------------------------------------------

struct list {
    struct cuda_conv convs[1024];
    size_t count;
};

static void add_distinct(struct list *list, const struct cuda_conv *conv)
{
    char name[CUDNN_GRAPH_NAME], other[CUDNN_GRAPH_NAME];
    cudnn_conv_name(conv, CUDA_CONV_FORWARD, name);
    for (size_t i = 0; i < list->count; i++) {
        cudnn_conv_name(&list->convs[i], CUDA_CONV_FORWARD, other);
        if (strcmp(name, other) == 0) {
            return;
        }
    }
    assert_true(list->count < sizeof list->convs / sizeof list->convs[0]);
    list->convs[list->count++] = *conv;
}

static uint32_t filled_up(uint32_t channels)
{
    return (channels + CUDA_LANES - 1) / CUDA_LANES * CUDA_LANES;
}

// Pixels before the image.
static uint32_t pad_before(const struct graph_op *op, uint32_t in, uint32_t out)
{
    uint32_t reach = (out - 1) * op->stride + op->kernel;
    return op->padding == GRAPH_PADDING_TORCH ? (op->kernel - 1) / 2
           : reach > in                       ? (reach - in) / 2
                                              : 0;
}

// What lies after the image so that `out` windows fit.
static uint32_t pad_after(uint32_t in, uint32_t out, uint32_t kernel, uint32_t stride,
                          uint32_t before)
{
    uint32_t reach = (out - 1) * stride + kernel, there = in + before;
    return reach > there ? reach - there : 0;
}

// A stem of stride 2 over pixels is one of stride 1 over blocks of 2x2 (trainer/cuda/image.h).
static void fold(struct cuda_conv *conv)
{
    conv->kernel = fold_blocks(conv->kernel, conv->pad_top);
    conv->pad_top = fold_padding(conv->pad_top);
    conv->pad_left = fold_padding(conv->pad_left);
    conv->h /= 2, conv->w /= 2, conv->c = 16;
    conv->stride = 1;
    conv->pad_bottom = pad_after(conv->h, conv->out_h, conv->kernel, 1, conv->pad_top);
    conv->pad_right = pad_after(conv->w, conv->out_w, conv->kernel, 1, conv->pad_left);
}

static struct cuda_conv conv_of(const struct graph *graph, const struct graph_op *op)
{
    const struct graph_value_info *x = graph_value_at(graph, op->x),
                                  *y = graph_value_at(graph, op->y);
    uint32_t top = pad_before(op, x->h, y->h), left = pad_before(op, x->w, y->w);
    struct cuda_conv conv = {
        .n = IMAGES,
        .h = x->h,
        .w = x->w,
        .c = filled_up(x->c),
        .out_h = y->h,
        .out_w = y->w,
        .out_c = filled_up(y->c),
        .kernel = op->kernel,
        .stride = op->stride,
        .pad_top = top,
        .pad_left = left,
        .pad_bottom = pad_after(x->h, y->h, op->kernel, op->stride, top),
        .pad_right = pad_after(x->w, y->w, op->kernel, op->stride, left),
    };
    if (x->c == 3 && op->stride == 2) {
        fold(&conv);
    }
    return conv;
}

static void add_network(struct list *list, const struct model_config *config)
{
    struct graph *graph = NULL;
    must(model_build(&graph, config, &error));
    for (size_t i = 0; i < graph_op_count(graph); i++) {
        const struct graph_op *op = graph_op_at(graph, i);
        if (op->kind == OP_CONV) {
            struct cuda_conv conv = conv_of(graph, op);
            add_distinct(list, &conv);
        }
    }
    graph_close(&graph);
}

// All depths of one width and size, with both paddings.
static void add_networks(struct list *list, int first, int last, double width, int size)
{
    struct model_config config;
    model_config_init(&config);
    config.width = width;
    config.size = size;
    config.stem = size < 64 ? MODEL_STEM_SMALL : MODEL_STEM_IMAGENET;
    for (config.encoder = first; config.encoder <= last; config.encoder++) {
        for (int padding = GRAPH_PADDING_SAME; padding <= GRAPH_PADDING_TORCH; padding++) {
            config.padding = padding;
            add_network(list, &config);
        }
    }
}

static void test_folded_stem(void **state)
{
    (void)state;
    static struct list list;
    add_networks(&list, MODEL_RESNET50, MODEL_RESNET50, 1, 224);
    char name[CUDNN_GRAPH_NAME];
    cudnn_conv_name(&list.convs[0], CUDA_CONV_FORWARD, name);
    assert_string_equal(name, "forward 512x112x112x16 -> 112x112x64, 4x4/1 (1 1 2 2), f32");
}

static void test_networks(void **state)
{
    (void)state;
    need_gpu();
    static struct list list;
    static const int sizes[] = {32, 96, 224}, widths[] = {1, 2, 4};
    for (size_t i = 0; i < 3; i++) {
        add_networks(&list, MODEL_TINY, MODEL_RESNET34, 1, sizes[i]);
        for (size_t j = 0; j < 3; j++) {
            add_networks(&list, MODEL_RESNET50, MODEL_RESNET200, widths[j], sizes[i]);
        }
    }
    static struct totals totals;
    time_t start = time(NULL);
    for (size_t i = 0; i < list.count; i++) {
        check_conv(list.convs[i], &totals);
    }
    print_totals(&totals, list.count);
    printf("  %ld seconds\n", (long)(time(NULL) - start));
}

// --- other shapes --------------------------------------------------------------------------------

static uint32_t pick(uint32_t *state, uint32_t low, uint32_t high)
{
    *state = *state * 1664525u + 1013904223u;
    return low + (*state >> 8) % (high - low + 1);
}

// Small and odd, as tests of the device use them.
static void test_small_shapes(void **state)
{
    (void)state;
    need_gpu();
    static struct totals totals;
    uint32_t random = 1;
    for (int i = 0; i < 24; i++) {
        struct cuda_conv conv = {.n = pick(&random, 1, 6),
                                 .h = pick(&random, 5, 11),
                                 .w = pick(&random, 5, 11),
                                 .c = CUDA_LANES * pick(&random, 1, 3),
                                 .out_c = CUDA_LANES * pick(&random, 1, 3),
                                 .kernel = pick(&random, 1, 5),
                                 .stride = pick(&random, 1, 3)};
        conv.pad_top = pick(&random, 0, conv.kernel - 1);
        conv.pad_left = pick(&random, 0, conv.kernel - 1);
        conv.pad_bottom = pick(&random, 0, conv.kernel - 1);
        conv.pad_right = pick(&random, 0, conv.kernel - 1);
        conv.out_h = (conv.h + conv.pad_top + conv.pad_bottom - conv.kernel) / conv.stride + 1;
        conv.out_w = (conv.w + conv.pad_left + conv.pad_right - conv.kernel) / conv.stride + 1;
        check_conv(conv, &totals);
    }
    print_totals(&totals, 24);
}

static void test_wrong_shape(void **state)
{
    (void)state;
    need_gpu();
    struct cuda_conv conv = {2, 8, 8, 16, 9, 9, 16, 3, 1, 1, 1, 1, 1, true}; // 8x8 comes out
    struct cudnn_graph graph;
    assert_int_not_equal(cudnn_conv_graph_open(&graph, gpu, &conv, CUDA_CONV_DATA, &error),
                         STATUS_OK);
    assert_non_null(strstr(error.reason, "data 2x8x8x16 -> 9x9x16, 3x3/1 (1 1 1 1), bf16"));
    cudnn_graph_close(&graph);
}

// --- texts ---------------------------------------------------------------------------------------

static void test_texts(void **state)
{
    (void)state;
    static const char *const right[] = {"0", "62 2=4 13=0", "1 2=3"},
                             *const wrong[] = {
                                 "",        "x",       " 62",         "62 ",     "62 2",
                                 "62 2=",   "62 =4",   "62,2=4",      "62 2=4 ", "-1",
                                 "62  2=4", "62 2=-1", "99999999999", "62 2=4x"};
    struct cudnn_engine engine;
    char text[CUDNN_ENGINE_TEXT];
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        assert_true(cudnn_engine_parse(&engine, right[i]));
        cudnn_engine_text(&engine, text);
        assert_string_equal(text, right[i]);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(cudnn_engine_parse(&engine, wrong[i]));
    }
    char many[4 * (CUDNN_ENGINE_KNOBS + 1) + 2] = "1"; // one knob too many
    for (int i = 0; i <= CUDNN_ENGINE_KNOBS; i++) {
        snprintf(many + 1 + 4 * i, 5, " 1=1");
    }
    assert_false(cudnn_engine_parse(&engine, many));
}

// What no engine has is refused, not taken for something else.
static void test_unknown_engines(void **state)
{
    (void)state;
    need_gpu();
    struct cuda_conv conv = {2, 8, 8, 16, 8, 8, 16, 3, 1, 1, 1, 1, 1, true};
    struct cudnn_graph graph;
    must(cudnn_conv_graph_open(&graph, gpu, &conv, CUDA_CONV_FORWARD, &error));
    static const char *const texts[] = {"9999", "62 43=1", "62 2=1000", "62 999=1"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct cudnn_engine engine;
        struct cudnn_plan plan;
        assert_true(cudnn_engine_parse(&engine, texts[i]));
        enum status status = cudnn_plan_open(&plan, &graph, &engine, &error);
        if (status == STATUS_OK) {
            fail_msg("'%s' is a plan", texts[i]);
        }
        assert_non_null(strstr(error.reason, graph.name));
    }
    cudnn_graph_close(&graph);
}

static void test_properties(void **state)
{
    (void)state;
    need_gpu();
    char *json = NULL;
    cudnnBackendDescriptor_t again = NULL;
    must(cudnn_properties_json(gpu, &json, &error));
    assert_non_null(strstr(json, "\"deviceName\""));
    must(cudnn_properties_of_json(&again, json, &error));
    free(json);
    cudnn_drop(&again);
    assert_int_not_equal(cudnn_properties_of_json(&again, "{\"deviceVer\":", &error), STATUS_OK);
    assert_null(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folded_stem),  cmocka_unit_test(test_networks),
        cmocka_unit_test(test_small_shapes), cmocka_unit_test(test_wrong_shape),
        cmocka_unit_test(test_texts),        cmocka_unit_test(test_unknown_engines),
        cmocka_unit_test(test_properties),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
