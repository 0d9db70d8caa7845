// `byol inspect`: what a dataset holds, and whether it is whole.
#include "tools/command.h"
#include "tools/describe.h"
#include "tools/extract.h"
#include "tools/json_text.h"
#include "tools/not_exact.h"
#include "tools/verify.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERRORS_PRINTED 20
#define CLASSES_SHOWN  5

static const char help[] =
    "Usage: byol inspect DATASET|SOURCE [options]\n"
    "\n"
    "Says what a dataset holds. Opening it checks every byte of its index; --verify also reads\n"
    "every file, checks every image's checksum and decodes it. Of a source that is none yet it "
    "says\n"
    "what it is, how many images it has, and how to convert it.\n"
    "\n"
    "Options:\n"
    "  --verify       read and decode everything; damage is listed with file, offset and record\n"
    "  --records      list the records: number, file, offset, stored length, width, height,\n"
    "                 class, name (tab-separated; the same in the JSON)\n"
    "  --extract DIR  write every image into a new directory, under its record's name, as the\n"
    "                 file it was before 'byol convert' (recoded JPEGs too)\n"
    "  --threads N    for --verify; 0 = one per core (0)\n"
    "  --json         print the result as JSON\n"
    "  --quiet        no progress line\n"
    "\n"
    "Examples:\n"
    "  byol inspect pictures.byol --verify\n"
    "  byol inspect pictures.byol --extract pictures-again\n"
    "\n"
    "Exit codes: 0 success, 1 damaged or not a dataset, 2 wrong usage.\n";

struct summary {
    uint64_t jpeg, recoded, png, labelled;
    uint64_t image_bytes, file_bytes;
    struct dataset_record smallest, largest; // by pixels
};

static uint64_t pixels(const struct dataset_record *record)
{
    return (uint64_t)record->width * record->height;
}

static struct summary summarize(const struct dataset *dataset)
{
    struct summary summary = {0};
    for (uint64_t i = 0; i < dataset_count(dataset); i++) {
        struct dataset_record record = dataset_record(dataset, i);
        summary.jpeg += record.kind == IMAGE_JPEG || record.kind == IMAGE_RECODED;
        summary.recoded += record.kind == IMAGE_RECODED;
        summary.png += record.kind == IMAGE_PNG;
        summary.labelled += record.label != DATASET_NO_LABEL;
        summary.image_bytes += record.length;
        if (i == 0 || pixels(&record) < pixels(&summary.smallest)) {
            summary.smallest = record;
        }
        if (i == 0 || pixels(&record) > pixels(&summary.largest)) {
            summary.largest = record;
        }
    }
    for (uint32_t i = 0; i < dataset_file_count(dataset); i++) {
        summary.file_bytes += dataset_file_length(dataset, i);
    }
    return summary;
}

// --- text --------------------------------------------------------------------------------------

static void print_classes(const struct dataset *dataset, const struct summary *summary)
{
    uint32_t count = dataset_class_count(dataset);
    if (count == 0) {
        printf("  classes   none: the images have no labels\n");
        return;
    }
    printf("  classes   %" PRIu32 ":", count);
    for (uint32_t i = 0; i < count && i < CLASSES_SHOWN; i++) {
        printf("%s %s", i ? "," : "", dataset_class_name(dataset, i));
    }
    printf("%s", count > CLASSES_SHOWN ? ", ..." : "");
    uint64_t without = dataset_count(dataset) - summary->labelled;
    if (without > 0) {
        printf(" (%" PRIu64 " images have none)", without);
    }
    putchar('\n');
}

static void print_provenance(const char *text)
{
    const char *head = "made by  ";
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        printf("  %s %.*s\n", head, (int)len, text);
        text += len + (text[len] == '\n');
        head = "         ";
    }
}

static void print_text(const struct dataset *dataset)
{
    struct summary summary = summarize(dataset);
    printf("%s\n", dataset_directory(dataset));
    if (dataset_store(dataset) == DATASET_LMDB) {
        printf("  store     LMDB, key = record number in ten digits, value = image file\n");
    } else {
        printf("  store     %" PRIu32 " zstd shard%s (.tar.zst)\n", dataset_file_count(dataset),
               dataset_file_count(dataset) == 1 ? "" : "s");
    }
    char recoded[64] = "";
    if (summary.recoded > 0) {
        snprintf(recoded, sizeof recoded, " of which %" PRIu64 " recoded", summary.recoded);
    }
    printf("  images    %" PRIu64 " (%" PRIu64 " JPEG%s, %" PRIu64 " PNG), %" PRIu32 " x %" PRIu32
           " to %" PRIu32 " x %" PRIu32 " pixels\n",
           dataset_count(dataset), summary.jpeg, recoded, summary.png, summary.smallest.width,
           summary.smallest.height, summary.largest.width, summary.largest.height);
    print_classes(dataset, &summary);
    char *inexact = dataset_not_exact(dataset);
    if (inexact != NULL) {
        printf("  not exact %s\n", inexact);
    }
    free(inexact);
    printf("  bytes     %.1f MB of images in %.1f MB of files\n", (double)summary.image_bytes / 1e6,
           (double)summary.file_bytes / 1e6);
    printf("  id        %016" PRIx64 "\n", dataset_id(dataset));
    print_provenance(dataset_provenance(dataset));
}

static const char *class_of(const struct dataset *dataset, const struct dataset_record *record)
{
    return record->label == DATASET_NO_LABEL ? "-"
                                             : dataset_class_name(dataset, (uint32_t)record->label);
}

static const char *file_name(const struct dataset *dataset, uint32_t file)
{
    return strrchr(dataset_file_path(dataset, file), '/') + 1;
}

static void print_records(const struct dataset *dataset)
{
    for (uint64_t i = 0; i < dataset_count(dataset); i++) {
        struct dataset_record record = dataset_record(dataset, i);
        printf("%" PRIu64 "\t%s\t%" PRIu64 "\t%" PRIu32 "\t%" PRIu32 "\t%" PRIu32 "\t%s\t%s\n", i,
               file_name(dataset, record.file), record.offset, record.stored_length, record.width,
               record.height, class_of(dataset, &record), dataset_record_name(dataset, i));
    }
}

// --- JSON --------------------------------------------------------------------------------------

static json_t *json_files(const struct dataset *dataset)
{
    json_t *files = json_array();
    for (uint32_t i = 0; i < dataset_file_count(dataset); i++) {
        char crc[16];
        snprintf(crc, sizeof crc, "%08" PRIx32, dataset_file_crc(dataset, i));
        json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "name", file_name(dataset, i),
                                               "bytes", (json_int_t)dataset_file_length(dataset, i),
                                               "crc32c", crc));
    }
    return files;
}

static json_t *json_classes(const struct dataset *dataset)
{
    json_t *classes = json_array();
    for (uint32_t i = 0; i < dataset_class_count(dataset); i++) {
        json_array_append_new(classes, json_text(dataset_class_name(dataset, i)));
    }
    return classes;
}

static json_t *json_records(const struct dataset *dataset)
{
    json_t *records = json_array();
    for (uint64_t i = 0; i < dataset_count(dataset); i++) {
        struct dataset_record record = dataset_record(dataset, i);
        json_array_append_new(
            records,
            json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:I}", "name",
                      dataset_record_name(dataset, i), "label", (json_int_t)record.label, "file",
                      file_name(dataset, record.file), "offset", (json_int_t)record.offset,
                      "stored_length", (json_int_t)record.stored_length, "width",
                      (json_int_t)record.width, "height", (json_int_t)record.height));
    }
    return records;
}

static json_t *json_damage(const struct verify_report *report)
{
    json_t *damage = json_array();
    for (size_t i = 0; i < report->error_count; i++) {
        const struct error *error = &report->errors[i];
        json_t *entry = json_pack("{s:o, s:s, s:o}", "file", json_text(error->path), "status",
                                  status_name(error->status), "reason", json_text(error->reason));
        if (error->offset != NOWHERE) {
            json_object_set_new(entry, "offset", json_integer((json_int_t)error->offset));
        }
        if (error->record != NOWHERE) {
            json_object_set_new(entry, "record", json_integer((json_int_t)error->record));
        }
        json_array_append_new(damage, entry);
    }
    return damage;
}

static json_t *json_extracted(const struct extract_report *report)
{
    return json_pack("{s:I, s:I, s:I}", "images", (json_int_t)report->images, "inexact",
                     (json_int_t)report->inexact, "bytes", (json_int_t)report->bytes);
}

static void print_json(const struct dataset *dataset, bool records,
                       const struct verify_report *report, const struct extract_report *extracted)
{
    struct summary summary = summarize(dataset);
    char id[24];
    snprintf(id, sizeof id, "%016" PRIx64, dataset_id(dataset));
    json_t *result =
        json_pack("{s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "dataset",
                  json_text(dataset_directory(dataset)), "store",
                  dataset_store(dataset) == DATASET_LMDB ? "lmdb" : "shards", "id", id, "images",
                  (json_int_t)dataset_count(dataset), "jpeg", (json_int_t)summary.jpeg, "recoded",
                  (json_int_t)summary.recoded, "png", (json_int_t)summary.png, "labelled",
                  (json_int_t)summary.labelled, "bytes", (json_int_t)summary.image_bytes, "classes",
                  json_classes(dataset), "files", json_files(dataset), "provenance",
                  json_text(dataset_provenance(dataset)));
    json_object_set_new(result, "not_exact", not_exact_json(dataset));
    if (records) {
        json_object_set_new(result, "records", json_records(dataset));
    }
    if (report != NULL) {
        json_object_set_new(result, "bad_files", json_integer((json_int_t)report->bad_files));
        json_object_set_new(result, "bad_records", json_integer((json_int_t)report->bad_records));
        json_object_set_new(result, "damage", json_damage(report));
    }
    if (extracted != NULL) {
        json_object_set_new(result, "extracted", json_extracted(extracted));
    }
    json_dumpf(result, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(result);
}

// --- the command -------------------------------------------------------------------------------

struct inspect {
    bool verify, records, json, quiet;
    const char *extract; // directory, or NULL
    int64_t threads;
};

static enum status verify(const struct inspect *inspect, const struct dataset *dataset,
                          struct verify_report *report, struct error *error)
{
    struct progress progress;
    cpu_set_t cpus;
    int cores = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    unsigned threads = (unsigned)(inspect->threads > 0 ? inspect->threads : cores);
    progress_begin(&progress, inspect->quiet);
    enum status status = verify_dataset(dataset, threads, &progress, report, error);
    progress_end(&progress);
    return status;
}

static int print_verdict(const struct dataset *dataset, const struct verify_report *report)
{
    for (size_t i = 0; i < report->error_count && i < ERRORS_PRINTED; i++) {
        char text[1200];
        fprintf(stderr, "byol inspect: %s\n", error_text(&report->errors[i], text, sizeof text));
    }
    if (report->bad_files + report->bad_records > 0) {
        fprintf(stderr,
                "byol inspect: %s is damaged: %" PRIu64 " of %" PRIu32 " files, %" PRIu64
                " of %" PRIu64 " images; restore it, or convert again\n",
                dataset_directory(dataset), report->bad_files, dataset_file_count(dataset),
                report->bad_records, dataset_count(dataset));
        return EXIT_FAILED;
    }
    return EXIT_OK;
}

static enum status extract(const struct inspect *inspect, const struct dataset *dataset,
                           struct extract_report *report, struct error *error)
{
    struct progress progress;
    progress_begin(&progress, inspect->quiet);
    enum status status = extract_dataset(dataset, inspect->extract, &progress, report, error);
    progress_end(&progress);
    return status;
}

static void print_extracted(const struct inspect *inspect, const struct extract_report *report)
{
    printf("  extracted %" PRIu64 " images, %.1f MB, into %s", report->images,
           (double)report->bytes / 1e6, inspect->extract);
    if (report->inexact > 0) {
        printf("; %" PRIu64 " of them have the original's pixels, but not its bytes",
               report->inexact);
    }
    putchar('\n');
}

static int inspect_dataset(const struct inspect *inspect, const char *directory)
{
    struct dataset *dataset;
    struct verify_report report = {0};
    struct extract_report extracted = {0};
    struct error error;
    enum status status = dataset_open(&dataset, directory, &error);
    if (status == STATUS_OK && inspect->verify) {
        status = verify(inspect, dataset, &report, &error);
    }
    if (status == STATUS_OK && inspect->extract != NULL) {
        status = extract(inspect, dataset, &extracted, &error);
    }
    int code = EXIT_OK;
    if (status != STATUS_OK) {
        code = command_failed(&command_inspect, &error, inspect->json);
    } else if (inspect->json) {
        print_json(dataset, inspect->records, inspect->verify ? &report : NULL,
                   inspect->extract ? &extracted : NULL);
    } else if (inspect->records) {
        print_records(dataset);
    } else {
        print_text(dataset);
        if (inspect->extract != NULL) {
            print_extracted(inspect, &extracted);
        }
    }
    if (code == EXIT_OK && inspect->verify) {
        code = print_verdict(dataset, &report);
        if (code == EXIT_OK && !inspect->json) {
            printf("  verified  every file and every image is whole\n");
        }
    }
    verify_report_free(&report);
    dataset_close(&dataset);
    return code;
}

static int run(int argc, char **argv)
{
    struct inspect inspect = {0};
    const struct option options[] = {
        {"verify", 0, OPTION_FLAG, &inspect.verify, 0, 0},
        {"records", 0, OPTION_FLAG, &inspect.records, 0, 0},
        {"extract", 0, OPTION_STRING, &inspect.extract, 0, 0},
        {"threads", 0, OPTION_INT, &inspect.threads, 0, 256},
        {"json", 0, OPTION_FLAG, &inspect.json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &inspect.quiet, 0, 0},
    };
    struct option_list operands;
    bool done;
    int code = command_options(&command_inspect, argc, argv, options,
                               sizeof options / sizeof *options, &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (operands.count != 1) {
        return command_misused(&command_inspect, "wants one dataset");
    }
    bool plain = !inspect.verify && !inspect.records && inspect.extract == NULL;
    if (plain && describe_wanted(operands.item[0])) {
        struct error error;
        enum status status = describe_source(operands.item[0], inspect.json, &error);
        return status ? command_failed(&command_inspect, &error, inspect.json) : EXIT_OK;
    }
    return inspect_dataset(&inspect, operands.item[0]);
}

const struct command command_inspect = {
    .name = "inspect",
    .summary = "describe, verify, extract",
    .help = help,
    .run = run,
};
