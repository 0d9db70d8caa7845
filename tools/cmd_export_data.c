// `byol export-data`: a dataset, back into a form that other tools read.
#include "formats/limits.h"
#include "tools/command.h"
#include "tools/export_data.h"
#include "tools/json_text.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "Usage: byol export-data DATASET --to folder|webdataset|tfrecord -o OUT [options]\n"
    "\n"
    "Writes a dataset out for other tools. Every image comes out with the bytes of the file that\n"
    "'byol convert' read (recoded ones too), with its label and its name, in the same order:\n"
    "\n"
    "  folder      OUT/CLASS/NAME, what torchvision's ImageFolder reads\n"
    "  webdataset  OUT/OUT-000000.tar, ... of KEY.jpg (or .png), KEY.cls, KEY.json\n"
    "  tfrecord    OUT/OUT.tfrecord-00000-of-00012, ... of image/encoded,\n"
    "              image/class/label (from 1, as ImageNet's), image/class/text,\n"
    "              image/filename, image/format, ...\n"
    "\n"
    "OUT/classes.txt names the classes by label, a line each; 'byol convert' heeds it (where they\n"
    "are shards, name the files: 'byol convert OUT/*.tar' or OUT/*.tfrecord*), so that\n"
    "converting OUT (or the files in it) gives the same labels. Names that cannot be files as\n"
    "they are get '%2E' for a dot and '%2F' for a slash; from shards they come back unchanged.\n"
    "\n"
    "Options:\n"
    "  --to folder|webdataset|tfrecord\n"
    "                     what to write\n"
    "  -o, --output OUT   the directory to make; it appears when it is complete\n"
    "  --shard-size MIB   start a new tar or TFRecord file at about this size (256)\n"
    "  --force            replace an earlier export at OUT\n"
    "  --json             print the result as JSON\n"
    "  --quiet            no progress line\n"
    "\n"
    "An export that was killed leaves OUT.partial, whose export.json says \"complete\": false;\n"
    "'byol convert' refuses it. Remove it, or export again with --force.\n"
    "\n"
    "Examples:\n"
    "  byol export-data pictures.byol --to folder -o pictures-again\n"
    "  byol export-data train --to webdataset -o train-wds --shard-size 512\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

static const struct export_form *const forms[] = {&export_folder, &export_webdataset,
                                                  &export_tfrecord};

struct export_options {
    const char *to, *output;
    int64_t shard_mib;
    bool force, json, quiet;
};

static void print_text(const struct export_options *options, const struct export_target *target)
{
    printf("%s: %" PRIu64 " images, %.1f MB, ", options->output, target->images,
           (double)target->bytes / 1e6);
    uint32_t classes = dataset_class_count(target->dataset);
    if (classes > 0) {
        printf("%" PRIu32 " classes", classes);
    } else {
        printf("no labels");
    }
    if (target->shards > 0) {
        printf(", in %" PRIu32 " %s file%s", target->shards, options->to,
               target->shards == 1 ? "" : "s");
    }
    putchar('\n');
    if (target->renamed > 0) {
        printf("renamed: %" PRIu64 " images, whose names cannot be kept there as they are\n",
               target->renamed);
    }
    if (target->inexact > 0) {
        printf("inexact: %" PRIu64 " images have the original's pixels, but not its bytes\n",
               target->inexact);
    }
}

static void print_json(const struct export_options *options, const struct export_target *target)
{
    json_t *result = json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "output", json_text(options->output),
        "form", options->to, "images", (json_int_t)target->images, "bytes",
        (json_int_t)target->bytes, "classes", (json_int_t)dataset_class_count(target->dataset),
        "labelled", (json_int_t)target->labelled, "shards", (json_int_t)target->shards, "renamed",
        (json_int_t)target->renamed, "inexact", (json_int_t)target->inexact);
    json_dumpf(result, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(result);
}

static int export_dataset(const struct export_options *options, const char *directory,
                          const struct export_form *form)
{
    struct dataset *dataset;
    struct progress progress;
    struct error error;
    struct export_target target = {.shard_bytes = (uint64_t)options->shard_mib << 20};
    signal(SIGXFSZ, SIG_IGN); // a limit on file sizes shall be an error with words, not a signal
    enum status status = dataset_open(&dataset, directory, &error);
    if (status == STATUS_OK) {
        target.dataset = dataset;
        progress_begin(&progress, options->quiet);
        status = export_data(&target, form, options->output, options->force, &progress, &error);
        progress_end(&progress);
    }
    int code = EXIT_OK;
    if (status != STATUS_OK) {
        code = command_failed(&command_export_data, &error, options->json);
    } else if (options->json) {
        print_json(options, &target);
    } else {
        print_text(options, &target);
    }
    dataset_close(&dataset);
    return code;
}

static int run(int argc, char **argv)
{
    struct export_options export = {.shard_mib = 256};
    const struct option options[] = {
        {"to", 0, OPTION_STRING, &export.to, 0, 0},
        {"output", 'o', OPTION_STRING, &export.output, 0, 0},
        {"shard-size", 0, OPTION_INT, &export.shard_mib, 1, (double)(LIMIT_SHARD_BYTES >> 20)},
        {"force", 0, OPTION_FLAG, &export.force, 0, 0},
        {"json", 0, OPTION_FLAG, &export.json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &export.quiet, 0, 0},
    };
    struct option_list operands;
    bool done;
    int code = command_options(&command_export_data, argc, argv, options,
                               sizeof options / sizeof *options, &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (operands.count != 1) {
        return command_misused(&command_export_data, "wants one dataset");
    }
    if (export.to == NULL || export.output == NULL || export.output[0] == '\0') {
        return command_misused(&command_export_data, "wants --to FORM and -o OUT");
    }
    int form = command_choice(&command_export_data, "to", export.to, "folder|webdataset|tfrecord");
    return form < 0 ? EXIT_USAGE : export_dataset(&export, operands.item[0], forms[form]);
}

const struct command command_export_data = {
    .name = "export-data",
    .summary = "a dataset as files again",
    .help = help,
    .run = run,
};
