// Golden group network, param_counts.tsv and init_*.tsv: the size of every encoder at every width,
// and our initialisation against the reference's, as statistics of every tensor.
#include "tests/support/golden_network.h"

#include <glob.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_counts(const struct table *table, size_t row)
{
    struct model_config config;
    model_config_init(&config);
    config.encoder = network_encoder(table_cell(table, row, "encoder"));
    config.v2 = table_int(table_cell(table, row, "v2")) != 0;
    config.width = strtod(table_cell(table, row, "width"), NULL);
    config.classes = 1000;
    struct graph *graph;
    struct error error;
    if (model_build(&graph, &config, &error) != STATUS_OK) {
        fail_msg("%s", error.reason);
    }
    uint64_t encoder = 0, projector = 0, predictor = 0, classifier = 0, statistics = 0;
    for (size_t i = 0; i < graph_param_count(graph); i++) {
        const struct graph_param *param = graph_param_at(graph, i);
        uint64_t *part = param->name[0] == 'c'                       ? &classifier
                         : param->name[0] == 'r'                     ? &encoder
                         : strncmp(param->name, "projector", 9) == 0 ? &projector
                                                                     : &predictor;
        *part += param->count;
    }
    for (size_t i = 0; i < graph_state_count(graph); i++) {
        const struct graph_state *state = graph_state_at(graph, i);
        statistics += state->name[0] == 'r' ? 2 * state->channels : 0;
    }
    uint32_t width = graph_value_at(graph, graph_output_find(graph, "embedding")->value)->c;
    assert_int_equal(width, table_int(table_cell(table, row, "embedding_dim")));
    assert_int_equal(encoder, table_int(table_cell(table, row, "encoder_params")));
    assert_int_equal(projector, table_int(table_cell(table, row, "projector_params")));
    assert_int_equal(predictor, table_int(table_cell(table, row, "predictor_params")));
    assert_int_equal(classifier, table_int(table_cell(table, row, "classifier_params")));
    assert_int_equal(graph_param_floats(graph),
                     table_int(table_cell(table, row, "total_online_params")));
    assert_int_equal(graph_param_count(graph), table_int(table_cell(table, row, "tensors")));
    assert_int_equal(statistics,
                     table_int(table_cell(table, row, "encoder_bn_state_values_mean_plus_var")));
    graph_close(&graph);
}

static void test_parameter_counts(void **state)
{
    (void)state;
    char folders[4][512];
    size_t count = golden_folders("network", folders), rows = 0;
    for (size_t i = 0; i < count; i++) {
        char path[560];
        struct table table;
        snprintf(path, sizeof path, "%s/param_counts.tsv", folders[i]);
        table_read(&table, path);
        for (size_t row = 0; row < table.rows; row++, rows++) {
            check_counts(&table, row);
        }
        table_free(&table);
    }
    print_message("golden parameter counts: %zu models\n", rows);
    assert_true(rows > 0);
}

struct moments {
    double mean, deviation, smallest, largest;
};

static struct moments moments_of(const float *values, uint64_t count)
{
    double sum = 0, squares = 0;
    struct moments moments = {.smallest = INFINITY, .largest = -INFINITY};
    for (uint64_t i = 0; i < count; i++) {
        double value = (double)values[i];
        sum += value;
        squares += value * value;
        moments.smallest = fmin(moments.smallest, value);
        moments.largest = fmax(moments.largest, value);
    }
    moments.mean = sum / (double)count;
    moments.deviation = sqrt(fmax(squares / (double)count - moments.mean * moments.mean, 0));
    return moments;
}

static bool near(double found, double expected, double allowed)
{
    return fabs(found - expected) <= allowed;
}

static void check_drawn(const char *name, const struct moments *moments, double sigma,
                        double expected, double count)
{
    // Five standard errors; that of the deviation follows from the cut normal's kurtosis, 2.37.
    bool matches = near(moments->mean, 0, 5 * expected / sqrt(count)) &&
                   near(moments->deviation, expected, 5 * 0.585 * expected / sqrt(count)) &&
                   moments->smallest >= -2 * sigma * 1.000001 &&
                   moments->largest <= 2 * sigma * 1.000001;
    // Of a thousand draws, some lie beyond 1.9 on either side (about 12 expected).
    bool reaches =
        count < 1000 || (moments->smallest < -1.9 * sigma && moments->largest > 1.9 * sigma);
    if (!matches || !reaches) {
        fail_msg("%s: mean %g, deviation %g, from %g to %g; expected 0, %g, cut at 2 x %g", name,
                 moments->mean, moments->deviation, moments->smallest, moments->largest, expected,
                 sigma);
    }
}

static void check_row(const struct table *table, size_t row, const struct graph_param *param,
                      const float *values)
{
    struct moments moments = moments_of(values, param->count);
    double value = strtod(table_cell(table, row, "stddev_or_value"), NULL);
    assert_string_equal(table_cell(table, row, "name"), param->name);
    if (strcmp(table_cell(table, row, "initialiser"), "constant") == 0) {
        if (moments.smallest != value || moments.largest != value) {
            fail_msg("%s: from %g to %g, expected %g", param->name, moments.smallest,
                     moments.largest, value);
        }
    } else {
        check_drawn(param->name, &moments, value,
                    strtod(table_cell(table, row, "expected_std"), NULL), (double)param->count);
    }
}

static size_t row_of(const struct table *table, const char *name)
{
    size_t row = 0;
    while (row < table->rows && strcmp(table_cell(table, row, "name"), name) != 0) {
        row++;
    }
    assert_true(row < table->rows);
    return row;
}

// "init_resnet50_v1.tsv" names encoder and version.
static void check_file(const char *path)
{
    static const char *const encoders[] = {"tinyresnet", "resnet18",  "resnet34", "resnet50",
                                           "resnet101",  "resnet152", "resnet200"};
    const char *name = strstr(path, "init_") + strlen("init_");
    struct model_config config;
    model_config_init(&config);
    config.classes = 1000;
    config.encoder = -1;
    for (size_t i = 0; i < sizeof encoders / sizeof encoders[0]; i++) {
        size_t len = strlen(encoders[i]);
        if (strncmp(name, encoders[i], len) == 0 && name[len] == '_') {
            config.encoder = (int)i;
            config.v2 = strncmp(name + len, "_v2", 3) == 0;
        }
    }
    struct table table;
    table_read(&table, path);
    struct graph *graph;
    struct error error;
    if (model_build(&graph, &config, &error) != STATUS_OK) {
        fail_msg("%s: %s", path, error.reason);
    }
    assert_int_equal(table.rows, graph_param_count(graph));
    float *params = malloc(graph_param_floats(graph) * sizeof *params);
    assert_non_null(params);
    model_initialise(graph, 1, "online", params);
    for (size_t i = 0; i < graph_param_count(graph); i++) {
        const struct graph_param *param = graph_param_at(graph, i);
        check_row(&table, row_of(&table, param->name), param, params + param->offset);
    }
    print_message("golden: %s: %zu tensors\n", path, table.rows);
    free(params);
    graph_close(&graph);
    table_free(&table);
}

static void test_initialisation(void **state)
{
    (void)state;
    char folders[4][512];
    size_t count = golden_folders("network", folders), files = 0;
    for (size_t i = 0; i < count; i++) {
        char pattern[560];
        glob_t found = {0};
        snprintf(pattern, sizeof pattern, "%s/init_*.tsv", folders[i]);
        if (glob(pattern, 0, NULL, &found) == 0) {
            for (size_t k = 0; k < found.gl_pathc; k++, files++) {
                check_file(found.gl_pathv[k]);
            }
        }
        globfree(&found);
    }
    assert_true(files > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameter_counts),
        cmocka_unit_test(test_initialisation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
