// Measures of an ablation's file: what `byol eval` is asked of every run.
#include "tools/ablate_yaml.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define MEASURE(key_, member, kind, low, high, text)                                               \
    {                                                                                              \
        .key = (key_), .type = (kind), .offset = offsetof(struct ablate_measure, member),          \
        .min = (low), .max = (high), .capacity = sizeof(((struct ablate_measure *)0)->member),     \
        .choices = ABLATE_PROBE_CHOICES, .help = (text)                                            \
    }

static const struct settings_field measure_fields[] = {
    MEASURE("probe", probe, SETTINGS_CHOICE, 0, 0, "of byol eval"),
    MEASURE("name", name, SETTINGS_STRING, 0, 0, "of the column"),
    MEASURE("train", train, SETTINGS_STRING, 0, 0, "dataset"),
    MEASURE("test", test, SETTINGS_STRING, 0, 0, "dataset"),
    MEASURE("convention", convention, SETTINGS_STRING, 0, 0, "knn: see byol eval"),
    MEASURE("k", k, SETTINGS_INT, 1, 1e6, "knn: neighbours that vote"),
    MEASURE("temperature", temperature, SETTINGS_FLOAT, 1e-4, 1e4, "knn: of the votes"),
    MEASURE("epochs", epochs, SETTINGS_INT, 1, 1e6, "linear: passes"),
    MEASURE("batch", batch, SETTINGS_INT, 1, 65536, "linear: images per step"),
    MEASURE("learning_rate", learning_rate, SETTINGS_FLOAT, 0, 1000, "linear: at batch 256"),
    MEASURE("cached", cached, SETTINGS_BOOL, 0, 0, "linear: features computed once"),
};

static enum status take_measure_key(struct plan_reader *reader, const char *key, size_t line,
                                    int value, void *context)
{
    struct ablate_measure *measure = context;
    struct settings_section section = {"", measure_fields,
                                       sizeof measure_fields / sizeof measure_fields[0], measure};
    char text[PLAN_KEY_BYTES + ABLATE_PATH];
    if (strcmp(key, "train") == 0 || strcmp(key, "test") == 0) {
        return plan_take_path(reader, value, key,
                              strcmp(key, "test") == 0 ? measure->test : measure->train);
    }
    const char *given = NULL;
    enum status status = plan_take_text(reader, value, key, &given, &line);
    if (status != STATUS_OK) {
        return status;
    }
    snprintf(text, sizeof text, "%.200s=%.300s", key, given);
    status = settings_set(text, &section, 1, reader->error);
    return status == STATUS_OK ? status : plan_refuse_because(reader, line, NULL);
}

static bool plain_name(const char *name)
{
    return *name && name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                      "0123456789-_")] == '\0';
}

static enum status check_measure(struct plan_reader *reader, struct ablate_measure *measure,
                                 size_t line)
{
    struct ablate_plan *plan = reader->plan;
    bool linear = measure->probe == ABLATE_LINEAR;
    if (measure->name[0] == '\0') {
        snprintf(measure->name, sizeof measure->name, "%s", linear ? "linear" : "knn");
    }
    if (!plain_name(measure->name)) {
        return plan_refuse(reader, line, "measure '%s': its name may have letters, digits, - and _",
                           measure->name);
    }
    for (size_t i = 0; i < plan->measure_count; i++) {
        if (strcmp(plan->measures[i].name, measure->name) == 0) {
            return plan_refuse(reader, line, "two measures '%s': give each a name", measure->name);
        }
    }
    if (linear ? measure->k > 0 || measure->temperature > 0 || measure->convention[0]
               : measure->epochs > 0 || measure->batch > 0 || measure->learning_rate > 0 ||
                     measure->cached) {
        return plan_refuse(reader, line, "measure '%s' has a key of the other probe",
                           measure->name);
    }
    return STATUS_OK;
}

// "knn", or a mapping.
static enum status take_measure(struct plan_reader *reader, int value)
{
    struct ablate_plan *plan = reader->plan;
    const yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    size_t line = plan_line(node);
    struct ablate_measure *measure = &plan->measures[plan->measure_count];
    if (plan->measure_count == ABLATE_MEASURES) {
        return plan_refuse(reader, line, "more than %u measures", ABLATE_MEASURES);
    }
    *measure = (struct ablate_measure){0};
    enum status status = node->type == YAML_SCALAR_NODE
                             ? take_measure_key(reader, "probe", line, value, measure)
                             : plan_members(reader, value, take_measure_key, measure);
    if (status == STATUS_OK) {
        status = check_measure(reader, measure, line);
    }
    plan->measure_count += status == STATUS_OK;
    return status;
}

enum status plan_take_measures(struct plan_reader *reader, int value)
{
    yaml_node_t *node = yaml_document_get_node(&reader->document, value);
    if (node->type != YAML_SEQUENCE_NODE) {
        return take_measure(reader, value);
    }
    enum status status = STATUS_OK;
    for (const int *item = node->data.sequence.items.start;
         status == STATUS_OK && item < node->data.sequence.items.top; item++) {
        status = take_measure(reader, *item);
    }
    return status;
}
