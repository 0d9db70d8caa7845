// What `byol convert` says at its end.
#include "tools/convert.h"
#include "tools/json_text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

static uint64_t recoded_count(const struct recode_counts *counts)
{
    return counts->outcomes[RECODE_EXACT] + counts->outcomes[RECODE_PIXELS];
}

static double recoded_ratio(const struct recode_counts *counts)
{
    return counts->before > 0 ? (double)counts->after / (double)counts->before : 1.0;
}

static void print_recoded(const struct recode_counts *counts)
{
    static const char *const reasons[RECODE_OUTCOMES] = {
        [RECODE_UNUSUAL] = "not baseline JPEG with usual sampling",
        [RECODE_EXTREME] = "values out of range",
        [RECODE_LARGE] = "would grow too much",
        [RECODE_DIFFERS] = "did not give the same",
    };
    printf("recoded: %" PRIu64 " JPEGs to %.3f of their size", recoded_count(counts),
           recoded_ratio(counts));
    if (counts->outcomes[RECODE_PIXELS] > 0) {
        printf(" (%" PRIu64 " come back with the same pixels, but not byte for byte)",
               counts->outcomes[RECODE_PIXELS]);
    }
    const char *head = "; left as they were:";
    for (int i = 0; i < RECODE_OUTCOMES; i++) {
        if (reasons[i] != NULL && counts->outcomes[i] > 0) {
            printf("%s %" PRIu64 " %s", head, counts->outcomes[i], reasons[i]);
            head = ",";
        }
    }
    if (counts->others > 0) {
        printf("%s %" PRIu64 " PNG", head, counts->others);
    }
    putchar('\n');
}

static json_t *json_recoded(const struct recode_counts *counts)
{
    const uint64_t *outcomes = counts->outcomes;
    return json_pack(
        "{s:I, s:I, s:f, s:{s:I, s:I, s:I, s:I, s:I}}", "images", (json_int_t)recoded_count(counts),
        "exact", (json_int_t)outcomes[RECODE_EXACT], "size_ratio", recoded_ratio(counts), "left",
        "unusual", (json_int_t)outcomes[RECODE_UNUSUAL], "extreme",
        (json_int_t)outcomes[RECODE_EXTREME], "large", (json_int_t)outcomes[RECODE_LARGE],
        "differs", (json_int_t)outcomes[RECODE_DIFFERS], "png", (json_int_t)counts->others);
}

// --- text --------------------------------------------------------------------------------------

static void print_classes(const struct convert *convert)
{
    const char *const *classes = select_classes(convert->select);
    uint32_t count = select_class_count(convert->select);
    if (count > 0) {
        printf("%" PRIu32 " classes (%s%s%s)", count, classes[0], count > 1 ? ", " : "",
               count > 2   ? "..."
               : count > 1 ? classes[1]
                           : "");
    } else {
        printf("no labels");
    }
}

// "1281122 JPEG (of them 22 CMYK, 3 progressive), 1 PNG; 1 is named otherwise"
static void print_kinds(const struct kind_counts *kinds)
{
    const struct {
        uint64_t count;
        const char *what;
    } parts[] = {{kinds->progressive, "progressive"}, {kinds->cmyk, "CMYK"}, {kinds->grey, "grey"}};
    printf("kinds: %" PRIu64 " JPEG", kinds->jpeg);
    const char *head = " (of them";
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].count > 0) {
            printf("%s %" PRIu64 " %s", head, parts[i].count, parts[i].what);
            head = ",";
        }
    }
    printf("%s, %" PRIu64 " PNG", head[0] == ',' ? ")" : "", kinds->png);
    if (kinds->misnamed > 0) {
        printf("; %" PRIu64 " named as the other kind", kinds->misnamed);
    }
    putchar('\n');
    if (kinds->resized > 0) {
        printf("resized: %" PRIu64 " images: the dataset is marked as not exact\n", kinds->resized);
    }
}

static void print_output(const struct convert *convert, const struct convert_output *output)
{
    const struct convert_totals *totals = &output->totals;
    printf("%s: %" PRIu64 " images, %.1f MB, ", output->path, totals->images,
           (double)totals->bytes / 1e6);
    print_classes(convert);
    printf(", as %s\n", convert->options.store == DATASET_LMDB ? "LMDB" : "zstd shards");
    print_kinds(&totals->kinds);
    if (convert->options.recode) {
        print_recoded(&totals->recoded);
    }
    if (totals->skipped > 0) {
        printf("left out: %" PRIu64 " damaged or unusable images\n", totals->skipped);
    }
}

static void print_sources(const struct convert *convert)
{
    size_t count = convert->sources.count, shown = count > 3 ? 2 : count;
    for (size_t i = 0; i < shown; i++) {
        printf("read %s: %s\n", convert->sources.item[i], convert->described[i]);
    }
    if (count > shown) {
        printf("read %zu more\n", count - shown);
    }
}

void convert_print(const struct convert *convert)
{
    print_sources(convert);
    for (size_t i = 0; i < convert->output_count; i++) {
        print_output(convert, &convert->outputs[i]);
    }
    if (source_plan_remark(convert->plan) != NULL) {
        printf("classes are numbered: %s\n", source_plan_remark(convert->plan));
    }
    if (convert->counts.others > 0 || convert->counts.links > 0) {
        printf("passed over: %" PRIu64 " files that are no JPEG or PNG, %" PRIu64
               " links or special files\n",
               convert->counts.others, convert->counts.links);
    }
    struct select_counts counts = select_counts(convert->select);
    if (counts.filtered + counts.limited + counts.unassigned > 0) {
        printf("not chosen: %" PRIu64 " of %" PRIu64 " images (%" PRIu64 " by lists, %" PRIu64
               " beyond the limit, %" PRIu64 " in no part of the split)\n",
               counts.filtered + counts.limited + counts.unassigned, counts.images, counts.filtered,
               counts.limited, counts.unassigned);
    }
}

// --- JSON --------------------------------------------------------------------------------------

static json_t *json_kinds(const struct kind_counts *kinds)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "jpeg", (json_int_t)kinds->jpeg,
                     "progressive", (json_int_t)kinds->progressive, "cmyk", (json_int_t)kinds->cmyk,
                     "grey", (json_int_t)kinds->grey, "png", (json_int_t)kinds->png,
                     "named_otherwise", (json_int_t)kinds->misnamed);
}

static json_t *json_skips(const struct convert_output *output)
{
    json_t *skips = json_array();
    for (uint64_t i = 0; i < output->totals.skipped && i < SKIPS_LISTED; i++) {
        const struct skip *skip = output->skips ? &output->skips[i] : NULL;
        if (skip != NULL && skip->name != NULL) { // else another process listed it
            json_array_append_new(skips, json_pack("{s:o, s:s, s:o}", "name", json_text(skip->name),
                                                   "status", status_name(skip->status), "reason",
                                                   json_text(skip->reason)));
        }
    }
    return skips;
}

static json_t *json_output(const struct convert *convert, const struct convert_output *output)
{
    const struct convert_totals *totals = &output->totals;
    return json_pack("{s:o, s:s, s:I, s:I, s:I, s:o, s:I, s:I, s:o, s:I, s:o}", "dataset",
                     json_text(output->path), "store",
                     convert->options.store == DATASET_LMDB ? "lmdb" : "shards", "images",
                     (json_int_t)totals->images, "bytes", (json_int_t)totals->bytes, "classes",
                     (json_int_t)select_class_count(convert->select), "kinds",
                     json_kinds(&totals->kinds), "resized", (json_int_t)totals->kinds.resized,
                     "skipped", (json_int_t)totals->skipped, "skips", json_skips(output),
                     "resumed_images", (json_int_t)totals->resumed, "recoded",
                     convert->options.recode ? json_recoded(&totals->recoded) : json_null());
}

static json_t *json_sources(const struct convert *convert)
{
    json_t *sources = json_array();
    for (size_t i = 0; i < convert->sources.count; i++) {
        json_array_append_new(sources,
                              json_pack("{s:o, s:o}", "path", json_text(convert->sources.item[i]),
                                        "kind", json_text(convert->described[i])));
    }
    return sources;
}

int convert_print_json(const struct convert *convert)
{
    struct select_counts counts = select_counts(convert->select);
    json_t *result =
        convert->output_count == 1 ? json_output(convert, &convert->outputs[0]) : json_object();
    if (convert->output_count > 1) {
        json_t *datasets = json_array();
        for (size_t i = 0; i < convert->output_count; i++) {
            json_array_append_new(datasets, json_output(convert, &convert->outputs[i]));
        }
        json_object_set_new(result, "datasets", datasets);
    }
    uint64_t left_out = counts.filtered + counts.limited + counts.unassigned;
    json_t *rest = json_pack(
        "{s:o, s:I, s:I, s:I, s:{s:f, s:f, s:f}}", "sources", json_sources(convert), "passed_over",
        (json_int_t)convert->counts.others, "links", (json_int_t)convert->counts.links,
        "not_chosen", (json_int_t)left_out, "seconds", "names", convert->scan_seconds, "images",
        convert->convert_seconds, "commit", convert->commit_seconds);
    const char *remark = source_plan_remark(convert->plan);
    json_object_update(result, rest);
    json_object_set_new(result, "classes_numbered_because",
                        remark ? json_text(remark) : json_null());
    json_decref(rest);
    int failed = result == NULL || json_dumpf(result, stdout, JSON_INDENT(2)) != 0;
    putchar('\n');
    json_decref(result);
    return failed ? EXIT_FAILED : EXIT_OK;
}
