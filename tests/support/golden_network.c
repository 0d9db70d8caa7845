// Golden networks: models, weights and inputs from names.
#include "tests/support/golden_network.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t hash_name(const char *prefix, const char *middle, const char *name)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s%s", prefix, middle, name);
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *at = full; *at; at++) {
        hash = (hash ^ (uint8_t)*at) * 0x100000001b3u;
    }
    return hash;
}

static uint64_t splitmix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static double unit(uint64_t hash, uint64_t index)
{
    return (double)(splitmix(hash + index) >> 40) / 16777216.0;
}

// --- opening

int network_encoder(const char *name)
{
    static const struct {
        const char *name;
        int encoder;
    } encoders[] = {{"TinyResNet", MODEL_TINY},     {"ResNet18", MODEL_RESNET18},
                    {"ResNet34", MODEL_RESNET34},   {"ResNet50", MODEL_RESNET50},
                    {"ResNet101", MODEL_RESNET101}, {"ResNet152", MODEL_RESNET152},
                    {"ResNet200", MODEL_RESNET200}};
    for (size_t i = 0; i < sizeof encoders / sizeof encoders[0]; i++) {
        if (strcmp(name, encoders[i].name) == 0) {
            return encoders[i].encoder;
        }
    }
    fail_msg("unknown encoder '%s'", name);
    return -1;
}

static size_t find_row(const struct table *table, const char *name)
{
    for (size_t row = 0; row < table->rows; row++) {
        if (strcmp(table_cell(table, row, "name"), name) == 0) {
            return row;
        }
    }
    fail_msg("'%s' is not in the golden table", name);
    return 0;
}

static void check_first_values(const struct network_case *network_case,
                               const struct graph_param *param, const char *branch,
                               const char *cell)
{
    float *values = malloc(param->count * sizeof *values);
    assert_non_null(values);
    network_case_param(network_case, branch, param, values);
    char *end = (char *)cell;
    for (size_t i = 0; i < param->count && i < 4; i++) {
        if (values[i] != strtof(end, &end)) {
            fail_msg("%s/%s: value %zu of the rule differs from the table", branch, param->name, i);
        }
        end += *end == ',';
    }
    free(values);
}

static void check_param(const struct network_case *network_case, const struct graph_param *param,
                        size_t row)
{
    static const char *const kinds[] = {[PARAM_CONV] = "conv_w",
                                        [PARAM_LINEAR] = "linear_w",
                                        [PARAM_BIAS] = "bias",
                                        [PARAM_SCALE] = "bn_scale",
                                        [PARAM_OFFSET] = "bn_offset"};
    const struct table *table = &network_case->params;
    char shape[64] = "";
    for (unsigned i = 0; i < param->dims; i++) {
        size_t len = strlen(shape);
        snprintf(shape + len, sizeof shape - len, "%s%" PRIu32, i ? "x" : "", param->shape[i]);
    }
    assert_string_equal(table_cell(table, row, "kind"), kinds[param->kind]);
    assert_string_equal(table_cell(table, row, "shape"), shape);
    assert_int_equal(table_int(table_cell(table, row, "numel")), param->count);
    assert_int_equal(table_int(table_cell(table, row, "fan_in")), param->fan_in);
    assert_int_equal(table_int(table_cell(table, row, "weight_decay_and_lars_apply")),
                     param->decay);
    check_first_values(network_case, param, "online", table_cell(table, row, "first4_online"));
    check_first_values(network_case, param, "target", table_cell(table, row, "first4_target"));
}

static void open_tables(struct network_case *out)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s/params.tsv", out->folder, out->name);
    table_read(&out->params, path);
    snprintf(path, sizeof path, "%s/%s/bn.tsv", out->folder, out->name);
    table_read(&out->bn, path);
    size_t count = graph_param_count(out->graph);
    assert_int_equal(out->params.rows, count);
    assert_int_equal(out->bn.rows, 2 * graph_state_count(out->graph));
    out->param_offset = calloc(count, sizeof *out->param_offset);
    assert_non_null(out->param_offset);
    for (size_t i = 0; i < count; i++) {
        const struct graph_param *param = graph_param_at(out->graph, i);
        size_t row = find_row(&out->params, param->name);
        check_param(out, param, row);
        out->param_offset[i] = (uint64_t)table_int(table_cell(&out->params, row, "offset"));
        out->params_total += param->count;
    }
    for (size_t row = 0; row < out->bn.rows; row++) {
        out->bn_total += (uint64_t)table_int(table_cell(&out->bn, row, "numel"));
    }
}

void network_case_open(struct network_case *out, const char *folder, const struct table *index,
                       size_t row)
{
    *out = (struct network_case){.folder = folder};
    out->name = table_cell(index, row, "case");
    out->prefix = table_cell(index, row, "name_prefix");
    out->mode = table_cell(index, row, "mode");
    out->files = table_cell(index, row, "files");
    out->batch = (uint32_t)table_int(table_cell(index, row, "batch"));
    model_config_init(&out->config);
    out->config.encoder = network_encoder(table_cell(index, row, "encoder"));
    out->config.v2 = table_int(table_cell(index, row, "v2")) != 0;
    out->config.width = strtod(table_cell(index, row, "width"), NULL);
    out->config.size = table_int(table_cell(index, row, "S"));
    out->config.projector_hidden = table_int(table_cell(index, row, "projector_hidden"));
    out->config.projector_output = table_int(table_cell(index, row, "projector_output"));
    out->config.predictor_hidden = table_int(table_cell(index, row, "predictor_hidden"));
    out->config.classes = table_int(table_cell(index, row, "classes"));
    struct error error;
    if (model_build(&out->graph, &out->config, &error) != STATUS_OK) {
        fail_msg("%s: %s", out->name, error.reason);
    }
    open_tables(out);
}

void network_case_close(struct network_case *network_case)
{
    graph_close(&network_case->graph);
    table_free(&network_case->params);
    table_free(&network_case->bn);
    free(network_case->param_offset);
}

bool network_case_has(const struct network_case *network_case, const char *file)
{
    char wanted[256];
    snprintf(wanted, sizeof wanted, "%s/%s", network_case->name, file);
    size_t len = strlen(wanted);
    for (const char *at = network_case->files; *at;) {
        size_t cell = strcspn(at, ",");
        if (cell == len && memcmp(at, wanted, len) == 0) {
            return true;
        }
        at += cell + (at[cell] == ',');
    }
    return false;
}

struct npy network_case_array(const struct network_case *network_case, const char *file)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", network_case->name, file);
    struct npy array = golden_array(network_case->folder, path);
    assert_int_equal(array.type, NPY_FLOAT32);
    return array;
}

// --- weights and inputs

void network_case_param(const struct network_case *network_case, const char *branch,
                        const struct graph_param *param, float *to)
{
    char middle[32];
    snprintf(middle, sizeof middle, "%s/", branch);
    uint64_t hash = hash_name(network_case->prefix, middle, param->name);
    double centre = param->kind == PARAM_SCALE ? 1 : 0;
    double scale = param->fan_in > 0 ? sqrt(3.0 / param->fan_in) : 0.1;
    for (uint64_t i = 0; i < param->count; i++) {
        to[i] = (float)(centre + scale * (2.0 * unit(hash, i) - 1.0));
    }
}

float *network_case_params(const struct network_case *network_case, const char *branch)
{
    float *block = malloc(graph_param_floats(network_case->graph) * sizeof *block);
    assert_non_null(block);
    for (size_t i = 0; i < graph_param_count(network_case->graph); i++) {
        const struct graph_param *param = graph_param_at(network_case->graph, i);
        network_case_param(network_case, branch, param, block + param->offset);
    }
    return block;
}

void network_case_images(const struct network_case *network_case, const char *name, float *to)
{
    uint64_t image = hash_name(network_case->prefix, name, "/image");
    uint64_t block = hash_name(network_case->prefix, name, "/block");
    uint64_t pixel = hash_name(network_case->prefix, name, "/pixel");
    uint64_t size = (uint64_t)network_case->config.size, index = 0;
    for (uint64_t n = 0; n < network_case->batch; n++) {
        for (uint64_t y = 0; y < size; y++) {
            for (uint64_t x = 0; x < size; x++) {
                uint64_t tile = (n * 8 + y * 8 / size) * 8 + x * 8 / size;
                for (uint64_t c = 0; c < 3; c++, index++) {
                    to[index] =
                        (float)(0.25 * unit(image, n * 3 + c) + 0.5 * unit(block, tile * 3 + c) +
                                0.25 * unit(pixel, index));
                }
            }
        }
    }
}

void network_case_labels(const struct network_case *network_case, const char *name, int32_t *to)
{
    uint64_t hash = hash_name(network_case->prefix, name, "");
    for (uint32_t n = 0; n < network_case->batch; n++) {
        to[n] = (int32_t)((splitmix(hash + n) >> 40) % (uint64_t)network_case->config.classes);
    }
}

// --- layouts

void network_case_tabled(const struct network_case *network_case, float *to, const float *block)
{
    for (size_t i = 0; i < graph_param_count(network_case->graph); i++) {
        const struct graph_param *param = graph_param_at(network_case->graph, i);
        memcpy(to + network_case->param_offset[i], block + param->offset,
               param->count * sizeof *to);
    }
}

void network_case_tabled_state(const struct network_case *network_case, float *to,
                               const float *state, bool average)
{
    for (size_t i = 0; i < graph_state_count(network_case->graph); i++) {
        const struct graph_state *module = graph_state_at(network_case->graph, i);
        const float *from = state + module->offset + 1 + (average ? 2 * module->channels : 0);
        for (unsigned which = 0; which < 2; which++, from += module->channels) {
            char name[160];
            snprintf(name, sizeof name, "%s/%s", module->name, which ? "var_ema" : "mean_ema");
            size_t row = find_row(&network_case->bn, name);
            assert_int_equal(table_int(table_cell(&network_case->bn, row, "numel")),
                             module->channels);
            memcpy(to + table_int(table_cell(&network_case->bn, row, "offset")), from,
                   module->channels * sizeof *to);
        }
    }
}
