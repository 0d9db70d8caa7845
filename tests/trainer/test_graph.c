// Building graphs: shapes, tables, aliases, and what a builder refuses.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trainer/net/graph.h"

static struct error error;

static struct graph *open_graph(void)
{
    struct graph *graph;
    assert_int_equal(graph_open(&graph, &error), STATUS_OK);
    return graph;
}

static void assert_shape(const struct graph *graph, graph_value value, uint32_t h, uint32_t w,
                         uint32_t c)
{
    assert_int_not_equal(value, GRAPH_BAD);
    const struct graph_value_info *info = graph_value_at(graph, value);
    assert_int_equal(info->h, h);
    assert_int_equal(info->w, w);
    assert_int_equal(info->c, c);
}

static void test_shapes(void **state)
{
    (void)state;
    struct graph *graph = open_graph();
    graph_value x = graph_input(graph, 37, 24);
    assert_shape(graph, x, 37, 24, 3);
    x = graph_conv(graph, "a", x, 8, 7, 2, GRAPH_PADDING_SAME);
    assert_shape(graph, x, 19, 12, 8);
    assert_shape(graph, graph_conv(graph, "b", x, 5, 3, 2, GRAPH_PADDING_TORCH), 10, 6, 5);
    assert_shape(graph, graph_conv(graph, "c", x, 5, 1, 2, GRAPH_PADDING_SAME), 10, 6, 5);
    assert_shape(graph, graph_max_pool(graph, x, 3, 2, GRAPH_PADDING_TORCH), 10, 6, 8);
    assert_shape(graph, graph_max_pool(graph, x, 3, 3, GRAPH_PADDING_SAME), 7, 4, 8);
    x = graph_mean_pool(graph, graph_batch_norm(graph, "d", x, true, 1));
    assert_shape(graph, x, 1, 1, 8);
    assert_shape(graph, graph_linear(graph, "e", x, 6, true), 1, 1, 6);
    graph_close(&graph);
    assert_null(graph);
}

// Tables are sorted by module; within one, scale before offset and weights before bias.
static void test_tables(void **state)
{
    (void)state;
    struct graph *graph = open_graph();
    graph_value x = graph_input(graph, 8, 8);
    x = graph_conv(graph, "z/conv", x, 4, 3, 1, GRAPH_PADDING_SAME);
    x = graph_batch_norm(graph, "z/norm", x, true, 0.5f);
    x = graph_batch_norm(graph, "b/norm", x, false, 1);
    x = graph_mean_pool(graph, x);
    x = graph_linear(graph, "a/linear", x, 5, true);
    x = graph_linear(graph, "a/linear_1", x, 2, false);
    graph_output_add(graph, "out", x);
    assert_int_equal(graph_finish(graph, &error), STATUS_OK);

    static const struct {
        const char *name;
        uint64_t offset, count;
        uint32_t fan_in;
        float initial;
        bool decay;
    } expected[] = {
        {"a/linear/w", 0, 20, 4, 0, true},       {"a/linear/b", 20, 5, 0, 0, false},
        {"a/linear_1/w", 25, 10, 5, 0, true},    {"b/norm/scale", 35, 4, 0, 1, false},
        {"b/norm/offset", 39, 4, 0, 0, false},   {"z/conv/w", 43, 108, 27, 0, true},
        {"z/norm/scale", 151, 4, 0, 0.5, false}, {"z/norm/offset", 155, 4, 0, 0, false},
    };
    assert_int_equal(graph_param_count(graph), 8);
    assert_int_equal(graph_param_floats(graph), 159);
    for (size_t i = 0; i < 8; i++) {
        const struct graph_param *param = graph_param_at(graph, i);
        assert_string_equal(param->name, expected[i].name);
        assert_int_equal(param->offset, expected[i].offset);
        assert_int_equal(param->count, expected[i].count);
        assert_int_equal(param->fan_in, expected[i].fan_in);
        assert_true(param->initial == expected[i].initial);
        assert_int_equal(param->decay, expected[i].decay);
    }
    assert_int_equal(graph_state_count(graph), 2);
    assert_string_equal(graph_state_at(graph, 0)->name, "b/norm");
    assert_int_equal(graph_state_at(graph, 1)->offset, 17);
    assert_int_equal(graph_state_floats(graph), 34);

    // Ops point at the first of their own.
    for (size_t i = 0; i < graph_op_count(graph); i++) {
        const struct graph_op *op = graph_op_at(graph, i);
        bool has_params = op->kind == OP_CONV || op->kind == OP_BATCH_NORM || op->kind == OP_LINEAR;
        assert_int_equal(op->param >= 0, has_params);
        assert_int_equal(op->state >= 0, op->kind == OP_BATCH_NORM);
    }
    assert_int_equal(graph_op_at(graph, 1)->param, 5);
    assert_int_equal(graph_op_at(graph, 2)->param, 6);
    assert_int_equal(graph_op_at(graph, 2)->state, 1);
    assert_int_equal(graph_op_at(graph, 3)->state, 0);
    graph_close(&graph);
}

static void test_stop_gradient(void **state)
{
    (void)state;
    struct graph *graph = open_graph();
    graph_value x = graph_mean_pool(graph, graph_input(graph, 8, 8));
    graph_value constant = graph_stop_gradient(graph, graph_stop_gradient(graph, x));
    graph_value y = graph_linear(graph, "stopped", constant, 2, false);
    graph_value z = graph_linear(graph, "open", x, 2, false);
    graph_output_add(graph, "y", y);
    graph_output_add(graph, "z", z);
    assert_int_equal(graph_finish(graph, &error), STATUS_OK);
    assert_int_equal(graph_op_count(graph), 4); // the marks are no ops
    assert_true(graph_op_at(graph, 2)->stop_gradient);
    assert_false(graph_op_at(graph, 3)->stop_gradient);
    assert_int_equal(graph_op_at(graph, 2)->x, x);
    assert_int_equal(graph_op_at(graph, 3)->x, x);
    assert_int_equal(graph_output_find(graph, "z")->value, z);
    assert_null(graph_output_find(graph, "x"));
    graph_close(&graph);
}

// Each function makes one mistake; everything after it must be passed over quietly.
static graph_value mistake_no_input(struct graph *graph)
{
    return graph_relu(graph, 0);
}

static graph_value mistake_two_inputs(struct graph *graph)
{
    graph_input(graph, 8, 8);
    return graph_input(graph, 8, 8);
}

static graph_value mistake_kind(struct graph *graph)
{
    return graph_linear(graph, "a", graph_input(graph, 8, 8), 4, true);
}

static graph_value mistake_sum(struct graph *graph)
{
    graph_value x = graph_input(graph, 8, 8);
    return graph_add(graph, x, graph_conv(graph, "a", x, 4, 3, 1, GRAPH_PADDING_SAME), false);
}

static graph_value mistake_stopped_sum(struct graph *graph)
{
    graph_value x = graph_input(graph, 8, 8);
    return graph_add(graph, x, graph_stop_gradient(graph, x), false);
}

static graph_value mistake_stopped_output(struct graph *graph)
{
    graph_value x = graph_mean_pool(graph, graph_input(graph, 8, 8));
    graph_output_add(graph, "out", graph_stop_gradient(graph, x));
    return graph_linear(graph, "a", x, 4, true);
}

static graph_value mistake_same_name(struct graph *graph)
{
    graph_value x = graph_mean_pool(graph, graph_input(graph, 8, 8));
    graph_linear(graph, "a", x, 4, true);
    return graph_linear(graph, "a", x, 4, true);
}

static graph_value mistake_long_name(struct graph *graph)
{
    char name[200];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    return graph_conv(graph, name, graph_input(graph, 8, 8), 4, 3, 1, GRAPH_PADDING_SAME);
}

static graph_value mistake_stride(struct graph *graph)
{
    return graph_conv(graph, "a", graph_input(graph, 8, 8), 4, 3, 0, GRAPH_PADDING_SAME);
}

static graph_value mistake_same_output(struct graph *graph)
{
    graph_value x = graph_mean_pool(graph, graph_input(graph, 8, 8));
    graph_output_add(graph, "out", x);
    graph_output_add(graph, "out", x);
    return x;
}

static void test_mistakes(void **state)
{
    (void)state;
    graph_value (*const mistakes[])(struct graph *) = {
        mistake_no_input,       mistake_two_inputs, mistake_kind,      mistake_sum,
        mistake_stopped_sum,    mistake_same_name,  mistake_long_name, mistake_stride,
        mistake_stopped_output, mistake_same_output};
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        struct graph *graph = open_graph();
        graph_value x = mistakes[i](graph);
        graph_value later = graph_relu(graph, x);
        graph_output_add(graph, "last", graph_mean_pool(graph, later));
        memset(&error, 0, sizeof error);
        assert_int_equal(graph_finish(graph, &error), STATUS_INVALID);
        assert_int_equal(error.status, STATUS_INVALID);
        assert_true(strlen(error.reason) > 10);
        graph_close(&graph);
    }
}

static void test_finish_needs_output(void **state)
{
    (void)state;
    struct graph *graph = open_graph();
    graph_input(graph, 8, 8);
    assert_int_equal(graph_finish(graph, &error), STATUS_INVALID);
    graph_close(&graph);
    graph_close(&graph); // nothing left to close
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_stop_gradient),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_finish_needs_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
