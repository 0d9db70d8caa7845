// ONNX models that lie: about sizes, about how often a tensor is there, about what goes into a
// node.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/file.h"
#include "formats/protobuf.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"
#include "trainer/weights/onnx.h"
#include "trainer/weights/onnx_layout.h"

static struct scratch scratch;

static int set_up(void **state)
{
    (void)state;
    scratch_make(&scratch);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static void put_ints(struct protobuf_writer *model, const char *name, uint64_t value, size_t count)
{
    size_t mark = protobuf_begin(model, ONNX_NODE_ATTRIBUTE);
    protobuf_put_string(model, ONNX_ATTRIBUTE_NAME, name);
    for (size_t i = 0; i < count; i++) {
        protobuf_put_varint(model, ONNX_ATTRIBUTE_INTS, value);
    }
    protobuf_end(model, mark);
}

static size_t put_node(struct protobuf_writer *model, const char *type, const char *const *inputs,
                       const char *output)
{
    size_t mark = protobuf_begin(model, ONNX_GRAPH_NODE);
    for (; *inputs != NULL; inputs++) {
        protobuf_put_string(model, ONNX_NODE_INPUT, *inputs);
    }
    protobuf_put_string(model, ONNX_NODE_OUTPUT, output);
    protobuf_put_string(model, ONNX_NODE_TYPE, type);
    return mark;
}

static void put_conv(struct protobuf_writer *model, const char *const *inputs, uint64_t kernel,
                     const char *output)
{
    size_t mark = put_node(model, "Conv", inputs, output);
    put_ints(model, "kernel_shape", kernel, 2);
    put_ints(model, "strides", 1, 2);
    put_ints(model, "pads", (kernel - 1) / 2, 4);
    protobuf_end(model, mark);
}

static void put_tensor(struct protobuf_writer *model, const char *name, const uint64_t shape[4],
                       size_t floats)
{
    float *values = calloc(floats + 1, sizeof *values);
    assert_non_null(values);
    size_t mark = protobuf_begin(model, ONNX_GRAPH_TENSOR);
    for (size_t i = 0; i < 4; i++) {
        protobuf_put_varint(model, ONNX_TENSOR_DIMS, shape[i]);
    }
    protobuf_put_varint(model, ONNX_TENSOR_TYPE, ONNX_FLOAT32);
    protobuf_put_string(model, ONNX_TENSOR_NAME, name);
    protobuf_put_bytes(model, ONNX_TENSOR_RAW, values, floats * sizeof *values);
    protobuf_end(model, mark);
    free(values);
}

static size_t begin_model(struct protobuf_writer *model)
{
    static const uint64_t sides[] = {1, 3, 32, 32};
    size_t graph = protobuf_begin(model, ONNX_MODEL_GRAPH);
    size_t input = protobuf_begin(model, ONNX_GRAPH_INPUT);
    protobuf_put_string(model, ONNX_VALUE_NAME, "x");
    size_t type = protobuf_begin(model, ONNX_VALUE_TYPE);
    size_t tensor = protobuf_begin(model, ONNX_TYPE_TENSOR);
    size_t shape = protobuf_begin(model, ONNX_TENSOR_TYPE_SHAPE);
    for (size_t i = 0; i < 4; i++) {
        size_t dim = protobuf_begin(model, ONNX_SHAPE_DIM);
        protobuf_put_varint(model, ONNX_DIM_VALUE, sides[i]);
        protobuf_end(model, dim);
    }
    protobuf_end(model, shape);
    protobuf_end(model, tensor);
    protobuf_end(model, type);
    protobuf_end(model, input);
    return graph;
}

static void refuse_model(struct protobuf_writer *model, size_t graph, enum status status,
                         const char *reason)
{
    struct weights weights;
    struct error error;
    char path[300];
    snprintf(path, sizeof path, "%s/model.onnx", scratch.path);
    protobuf_end(model, graph);
    assert_status(protobuf_finish(model, &error), STATUS_OK, &error);
    unlink(path);
    assert_status(file_write_durably(path, model->bytes, model->len, &error), STATUS_OK, &error);
    protobuf_free(model);
    assert_int_equal(onnx_read(&weights, path, &error), status);
    assert_string_equal(error.path, path);
    if (strstr(error.reason, reason) == NULL) {
        fail_msg("'%s' does not say '%s'", error.reason, reason);
    }
}

// 2^62 floats are 2^64 bytes, which is 0 where it is not looked at.
static void test_onnx_sizes_do_not_wrap(void **state)
{
    (void)state;
    struct protobuf_writer model = {0};
    size_t graph = begin_model(&model);
    put_tensor(&model, "small", (const uint64_t[]){65536, 3, 1, 1}, 3 * 65536);
    put_tensor(&model, "large", (const uint64_t[]){65536, 65536, 32768, 32768}, 0);
    put_conv(&model, (const char *const[]){"x", "small", NULL}, 1, "y");
    put_conv(&model, (const char *const[]){"y", "large", NULL}, 32768, "z");
    protobuf_end(&model, put_node(&model, "GlobalAveragePool", (const char *const[]){"z", NULL},
                                  "features"));
    refuse_model(&model, graph, STATUS_UNSUPPORTED, "'large'");
}

// Weights take no more memory than the file has bytes.
static void test_onnx_tensors_belong_to_one_node(void **state)
{
    (void)state;
    struct protobuf_writer model = {0};
    size_t graph = begin_model(&model);
    char from[16] = "x", to[16];
    put_tensor(&model, "shared", (const uint64_t[]){3, 3, 9, 9}, 3 * 3 * 9 * 9);
    for (int i = 0; i < 100; i++) {
        snprintf(to, sizeof to, "y%d", i);
        put_conv(&model, (const char *const[]){from, "shared", NULL}, 9, to);
        snprintf(from, sizeof from, "%s", to);
    }
    protobuf_end(&model, put_node(&model, "GlobalAveragePool", (const char *const[]){from, NULL},
                                  "features"));
    refuse_model(&model, graph, STATUS_UNSUPPORTED, "more than one node has the tensor 'shared'");
}

// What would be left out silently is refused: biases that we do not have, and are not there.
static void test_onnx_inputs_are_all_read(void **state)
{
    (void)state;
    struct protobuf_writer model = {0};
    size_t graph = begin_model(&model);
    put_tensor(&model, "w", (const uint64_t[]){2, 3, 1, 1}, 6);
    put_conv(&model, (const char *const[]){"x", "w", "bias", NULL}, 1, "y");
    refuse_model(&model, graph, STATUS_UNSUPPORTED, "'Conv'");
    model = (struct protobuf_writer){0};
    graph = begin_model(&model);
    put_tensor(&model, "w", (const uint64_t[]){2, 3, 1, 1}, 6);
    protobuf_end(&model,
                 put_node(&model, "Gemm", (const char *const[]){"x", "w", "bias", NULL}, "y"));
    refuse_model(&model, graph, STATUS_UNSUPPORTED, "bias of 'y'");
}

static void test_onnx_has_a_limit_of_nodes(void **state)
{
    (void)state;
    struct protobuf_writer model = {0};
    size_t graph = begin_model(&model);
    for (int i = 0; i < 70000; i++) {
        protobuf_put_bytes(&model, ONNX_GRAPH_NODE, "", 0);
    }
    refuse_model(&model, graph, STATUS_LIMIT, "65536");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_onnx_sizes_do_not_wrap),
        cmocka_unit_test(test_onnx_tensors_belong_to_one_node),
        cmocka_unit_test(test_onnx_inputs_are_all_read),
        cmocka_unit_test(test_onnx_has_a_limit_of_nodes),
    };
    return cmocka_run_group_tests_name("onnx", tests, set_up, tear_down);
}
