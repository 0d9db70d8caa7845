// `byol convert`: image collections to a dataset. Two passes over each source: the first reads
// names, which decide classes and labels; the second reads images.
#include "formats/limits.h"
#include "formats/name.h"
#include "formats/source.h"
#include "tools/command.h"
#include "tools/convert_pool.h"
#include "tools/json_text.h"
#include "tools/progress.h"

#include <inttypes.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX   256
#define SKIPS_LISTED  1000 // in the JSON; all are counted
#define SKIPS_PRINTED 20

static const char help[] =
    "Usage: byol convert SOURCE... -o DATASET [options]\n"
    "\n"
    "Turns image collections into a dataset that training can stream. A SOURCE is a folder or a\n"
    "tar (plain, .gz, .zst, .xz or .bz2) of JPEG and PNG files:\n"
    "\n"
    "  pictures/cat/1.jpg  pictures/dog/2.jpg    folders are classes: labels in order of name\n"
    "  pictures/1.jpg      pictures/2.jpg        flat: no labels\n"
    "\n"
    "Directories that all images share are dropped; the first one left is the class. Files that\n"
    "are no images are passed over. Every image is decoded once, so training meets no bad one.\n"
    "\n"
    "Options:\n"
    "  -o, --output DATASET   the directory to make; it appears when it is complete\n"
    "  --store lmdb|shards    lmdb: one file, opens with any LMDB binding (default);\n"
    "                         shards: .tar.zst files that tar, zstd and WebDataset understand\n"
    "  --shard-size MIB       start a new shard at about this size (256)\n"
    "  --bad fatal|skip       at a damaged image: stop (default), or leave it out and list it\n"
    "  --recode               store JPEGs in a coding of the same size that training decodes\n"
    "                         several times as fast; each one is proven to give the same pixels\n"
    "                         (else it stays as it is), and its file comes back by\n"
    "                         'byol inspect DATASET --extract DIR'\n"
    "  --no-verify            read the images' headers only, do not decode them\n"
    "  --threads N            0 = one per core (0); the bytes do not depend on it\n"
    "  --force                replace a dataset that is there already\n"
    "  --json                 print the result as JSON\n"
    "  --quiet                no progress line\n"
    "\n"
    "A conversion that was killed leaves DATASET.partial, which never opens: run it again.\n"
    "\n"
    "Examples:\n"
    "  byol convert pictures -o pictures.byol\n"
    "  byol convert train.tar.zst -o train --store shards --bad skip\n"
    "  byol convert pictures -o pictures.byol --recode\n"
    "  byol inspect train --verify\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

struct skip {
    char *name;
    struct error error;
};

// What became of the images where recoding was asked for.
struct recode_counts {
    uint64_t outcomes[RECODE_OUTCOMES]; // of JPEGs
    uint64_t others;                    // PNG
    uint64_t before, after;             // bytes of those recoded
};

struct convert {
    struct option_list sources;
    const char *output;
    enum dataset_store store;
    bool skip_bad, no_verify, recode, force, json, quiet;
    int64_t threads, shard_mib;

    struct progress progress;
    struct source_plan *plan;
    struct convert_pool *pool;
    struct dataset_writer *writer;
    struct source_counts counts; // summed over sources
    uint64_t images, bytes, skip_count;
    struct recode_counts recoded;
    struct skip *skips; // the first SKIPS_LISTED
};

// --- first pass: names -------------------------------------------------------------------------

static void show_scan(void *context, uint64_t images)
{
    struct convert *convert = context;
    progress_line(&convert->progress, false, "reading names: %" PRIu64 " images", images);
}

static void add_counts(struct convert *convert, struct source_counts counts)
{
    convert->counts.images += counts.images;
    convert->counts.others += counts.others;
    convert->counts.links += counts.links;
}

static enum status scan_sources(struct convert *convert, struct error *error)
{
    enum status status = source_plan_open(&convert->plan, error);
    for (size_t i = 0; i < convert->sources.count && status == STATUS_OK; i++) {
        struct source *source;
        status = source_open(&source, convert->sources.item[i], error);
        if (status == STATUS_OK) {
            status = source_plan_scan(convert->plan, source, show_scan, convert, error);
            add_counts(convert, source_counts(source));
        }
        source_close(&source);
    }
    if (status == STATUS_OK && convert->counts.images == 0) {
        status = error_set(error, STATUS_NOT_FOUND, convert->sources.item[0], NOWHERE, NOWHERE,
                           "no JPEG or PNG files in it (%" PRIu64 " files are something else)",
                           convert->counts.others + convert->counts.links);
    }
    return status ? status : source_plan_finish(convert->plan, error);
}

// --- second pass: images -----------------------------------------------------------------------

// Records a bad image, or makes it the failure of the whole.
static enum status judge(struct convert *convert, const char *name, const struct error *bad,
                         struct error *error)
{
    if (!convert->skip_bad || bad->status == STATUS_NO_MEMORY) {
        *error = *bad;
        return bad->status;
    }
    if (convert->skip_count < SKIPS_LISTED) {
        char *copy = strdup(name);
        if (copy == NULL) {
            return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
        }
        struct skip *skip = &convert->skips[convert->skip_count];
        skip->name = copy;
        skip->error = *bad;
    }
    if (convert->skip_count++ < SKIPS_PRINTED) {
        char text[1200];
        progress_notice(&convert->progress, "skipped: %s", error_text(bad, text, sizeof text));
    }
    return STATUS_OK;
}

static void count_recoded(struct recode_counts *counts, const struct convert_job *job)
{
    if (job->item.info.kind == IMAGE_PNG) {
        counts->others++;
        return;
    }
    counts->outcomes[job->outcome]++;
    if (job->item.info.kind == IMAGE_RECODED) {
        counts->before += job->len;
        counts->after += job->item.len;
    }
}

// Writes the oldest image under way.
static enum status finish_oldest(struct convert *convert, struct error *error)
{
    struct convert_job *job = convert_pool_oldest(convert->pool);
    enum status status = job->status;
    if (status == STATUS_OK) {
        status = dataset_writer_add_packed(convert->writer, &job->item, &job->packed, error);
        convert->images++;
        convert->bytes += job->len;
        count_recoded(&convert->recoded, job);
    } else {
        error_set(&job->error, status, job->place, job->error.offset, NOWHERE, "%s",
                  job->error.reason);
        status = judge(convert, job->name, &job->error, error);
    }
    convert_pool_release(convert->pool);
    progress_bar(&convert->progress, "converting", convert->images + convert->skip_count,
                 convert->counts.images, "images");
    return status;
}

// Reads the member into the job. Only what ends the source is returned; a bad member goes on as a
// failed job, so that bad images are met in order.
static enum status fill_job(struct convert *convert, struct source *source,
                            const struct source_member *member, struct convert_job *job,
                            struct error *error)
{
    const char *name = source_plan_name(convert->plan, member, &job->label);
    snprintf(job->name, LIMIT_NAME_BYTES + 1, "%s", name);
    snprintf(job->place, sizeof job->place, "%s/%s", source_path(source), member->name);
    job->error = (struct error){.offset = NOWHERE, .record = NOWHERE};
    if (member->fault != NULL) {
        job->status = error_set(&job->error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "its name %s",
                                member->fault);
        return STATUS_OK;
    }
    if (member->size == 0) {
        job->status =
            error_set(&job->error, STATUS_TRUNCATED, NULL, NOWHERE, NOWHERE, "an empty file");
        return STATUS_OK;
    }
    job->status = source_read(source, &job->bytes, &job->len, &job->capacity, &job->error);
    if (job->status != STATUS_OK && job->status != STATUS_LIMIT) {
        *error = job->error;
        return job->status;
    }
    return STATUS_OK;
}

static enum status convert_source(struct convert *convert, struct source *source,
                                  struct error *error)
{
    struct source_member member;
    enum status status;
    while ((status = source_next(source, &member, error)) == STATUS_OK) {
        struct convert_job *job = convert_pool_free_job(convert->pool);
        if (job == NULL) {
            status = finish_oldest(convert, error);
            job = convert_pool_free_job(convert->pool);
        }
        if (status == STATUS_OK) {
            status = fill_job(convert, source, &member, job, error);
        }
        if (status != STATUS_OK) {
            return status;
        }
        convert_pool_submit(convert->pool);
    }
    return status == STATUS_END ? STATUS_OK : status;
}

static enum status convert_all(struct convert *convert, struct error *error)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->sources.count && status == STATUS_OK; i++) {
        struct source *source;
        status = source_open(&source, convert->sources.item[i], error);
        if (status == STATUS_OK) {
            status = convert_source(convert, source, error);
        }
        source_close(&source);
    }
    while (status == STATUS_OK && convert_pool_oldest(convert->pool) != NULL) {
        status = finish_oldest(convert, error);
    }
    if (status == STATUS_OK && convert->images + convert->skip_count != convert->counts.images) {
        status = error_set(error, STATUS_IO, convert->sources.item[0], NOWHERE, NOWHERE,
                           "the sources changed while they were read: convert again");
    }
    if (status == STATUS_OK && convert->images == 0) {
        status = error_set(error, STATUS_CORRUPT, convert->sources.item[0], NOWHERE, NOWHERE,
                           "none of its %" PRIu64 " images is usable", convert->skip_count);
    }
    return status;
}

// --- the whole ---------------------------------------------------------------------------------

// Text for the index. Base names only, so that the dataset does not depend on where its sources
// lay.
static char *describe_sources(const struct convert *convert)
{
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    if (stream == NULL) {
        return NULL;
    }
    fprintf(stream, "byol convert, images %s, bad images %s%s\n",
            convert->no_verify ? "probed" : "decoded", convert->skip_bad ? "skipped" : "refused",
            convert->recode ? ", JPEGs recoded" : "");
    for (size_t i = 0; i < convert->sources.count; i++) {
        const char *path = convert->sources.item[i];
        size_t end = strlen(path);
        while (end > 1 && path[end - 1] == '/') {
            end--;
        }
        const char *slash = memrchr(path, '/', end > 0 ? end - 1 : 0);
        const char *base = slash ? slash + 1 : path;
        fprintf(stream, "source %.*s\n", (int)(path + end - base), base);
    }
    if (fclose(stream) != 0) {
        free(text);
        return NULL;
    }
    if (name_text_fault(text, len) != NULL) { // a source's name is not UTF-8
        text[strcspn(text, "\n") + 1] = '\0';
    }
    return text;
}

static enum status open_writer(struct convert *convert, struct error *error)
{
    char *provenance = describe_sources(convert);
    if (provenance == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    struct dataset_writer_config config = {.store = convert->store,
                                           .shard_bytes = (uint64_t)convert->shard_mib << 20,
                                           .provenance = provenance,
                                           .replace = convert->force};
    enum status status = dataset_writer_open(&convert->writer, convert->output, &config, error);
    free(provenance);
    if (status == STATUS_EXISTS && !convert->force) {
        error_set(error, status, error->path, NOWHERE, NOWHERE,
                  "%s; choose another name, or --force to replace a dataset", error->reason);
    }
    return status;
}

static unsigned thread_count(int64_t wanted)
{
    cpu_set_t cpus;
    if (wanted > 0) {
        return (unsigned)wanted;
    }
    int count = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    return count < THREADS_MAX ? (unsigned)count : THREADS_MAX;
}

static enum status run_convert(struct convert *convert, struct error *error)
{
    convert->skips = calloc(SKIPS_LISTED, sizeof *convert->skips);
    if (convert->skips == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    // Opened first: a name that is taken should be heard of at once, not after reading a terabyte.
    enum status status = open_writer(convert, error);
    progress_begin(&convert->progress, convert->quiet);
    if (status == STATUS_OK) {
        status = scan_sources(convert, error);
    }
    if (status == STATUS_OK) {
        const struct convert_work work = {
            .store = convert->store, .verify = !convert->no_verify, .recode = convert->recode};
        status = convert_pool_open(&convert->pool, thread_count(convert->threads), &work, error);
    }
    if (status == STATUS_OK) {
        progress_end(&convert->progress);
        progress_begin(&convert->progress, convert->quiet); // what is left is estimated from here
        status = convert_all(convert, error);
    }
    if (status == STATUS_OK) {
        progress_line(&convert->progress, false, "writing %s to disk", convert->output);
        status = dataset_writer_commit(&convert->writer, source_plan_classes(convert->plan),
                                       source_plan_class_count(convert->plan), error);
    }
    progress_end(&convert->progress);
    return status;
}

static void close_all(struct convert *convert)
{
    convert_pool_close(&convert->pool);
    dataset_writer_abort(&convert->writer);
    source_plan_close(&convert->plan);
    for (size_t i = 0; convert->skips != NULL && i < SKIPS_LISTED; i++) {
        free(convert->skips[i].name);
    }
    free(convert->skips);
}

// --- what the person sees ----------------------------------------------------------------------

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

static void print_text(const struct convert *convert)
{
    const char *const *classes = source_plan_classes(convert->plan);
    uint32_t count = source_plan_class_count(convert->plan);
    printf("%s: %" PRIu64 " images, %.1f MB, ", convert->output, convert->images,
           (double)convert->bytes / 1e6);
    if (count > 0) {
        printf("%" PRIu32 " classes (%s%s%s)", count, classes[0], count > 1 ? ", " : "",
               count > 2   ? "..."
               : count > 1 ? classes[1]
                           : "");
    } else {
        printf("no labels");
    }
    printf(", as %s\n", convert->store == DATASET_LMDB ? "LMDB" : "zstd shards");
    if (convert->recode) {
        print_recoded(&convert->recoded);
    }
    if (convert->counts.others > 0 || convert->counts.links > 0) {
        printf("passed over: %" PRIu64 " files that are no JPEG or PNG, %" PRIu64
               " links or special files\n",
               convert->counts.others, convert->counts.links);
    }
    if (convert->skip_count > 0) {
        printf("left out: %" PRIu64 " damaged or unusable images\n", convert->skip_count);
    }
}

static int print_json(const struct convert *convert)
{
    json_t *skips = json_array();
    for (uint64_t i = 0; i < convert->skip_count && i < SKIPS_LISTED; i++) {
        const struct skip *skip = &convert->skips[i];
        json_array_append_new(skips, json_pack("{s:o, s:s, s:o}", "name", json_text(skip->name),
                                               "status", status_name(skip->error.status), "reason",
                                               json_text(skip->error.reason)));
    }
    json_t *result = json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "dataset", json_text(convert->output),
        "store", convert->store == DATASET_LMDB ? "lmdb" : "shards", "images",
        (json_int_t)convert->images, "bytes", (json_int_t)convert->bytes, "classes",
        (json_int_t)source_plan_class_count(convert->plan), "passed_over",
        (json_int_t)convert->counts.others, "links", (json_int_t)convert->counts.links, "skipped",
        (json_int_t)convert->skip_count, "skips", skips, "recoded",
        convert->recode ? json_recoded(&convert->recoded) : json_null());
    int failed = result == NULL || json_dumpf(result, stdout, JSON_INDENT(2)) != 0;
    putchar('\n');
    json_decref(result);
    return failed ? EXIT_FAILED : EXIT_OK;
}

// Fills the fields that come as words; EXIT_OK or EXIT_USAGE.
static int read_words(struct convert *convert, const char *store, const char *bad)
{
    if (strcmp(store, "lmdb") != 0 && strcmp(store, "shards") != 0) {
        return command_misused(&command_convert, "--store is 'lmdb' or 'shards', not '%s'", store);
    }
    if (strcmp(bad, "fatal") != 0 && strcmp(bad, "skip") != 0) {
        return command_misused(&command_convert, "--bad is 'fatal' or 'skip', not '%s'", bad);
    }
    if (convert->sources.count == 0) {
        return command_misused(&command_convert, "wants at least one folder or tar to read");
    }
    if (convert->output == NULL || convert->output[0] == '\0') {
        return command_misused(&command_convert, "wants -o DATASET, the directory to make");
    }
    convert->store = strcmp(store, "lmdb") == 0 ? DATASET_LMDB : DATASET_SHARDS;
    convert->skip_bad = strcmp(bad, "skip") == 0;
    return EXIT_OK;
}

static int run(int argc, char **argv)
{
    struct convert convert = {.shard_mib = 256};
    const char *store = "lmdb", *bad = "fatal";
    const struct option options[] = {
        {"output", 'o', OPTION_STRING, &convert.output, 0, 0},
        {"store", 0, OPTION_STRING, &store, 0, 0},
        {"shard-size", 0, OPTION_INT, &convert.shard_mib, 1, (double)(LIMIT_SHARD_BYTES >> 20)},
        {"bad", 0, OPTION_STRING, &bad, 0, 0},
        {"recode", 0, OPTION_FLAG, &convert.recode, 0, 0},
        {"no-verify", 0, OPTION_FLAG, &convert.no_verify, 0, 0},
        {"threads", 0, OPTION_INT, &convert.threads, 0, THREADS_MAX},
        {"force", 0, OPTION_FLAG, &convert.force, 0, 0},
        {"json", 0, OPTION_FLAG, &convert.json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &convert.quiet, 0, 0},
    };
    bool done;
    int code = command_options(&command_convert, argc, argv, options,
                               sizeof options / sizeof *options, &convert.sources, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    code = read_words(&convert, store, bad);
    if (code != EXIT_OK) {
        return code;
    }
    signal(SIGXFSZ, SIG_IGN); // a limit on file sizes shall be an error with words, not a signal
    struct error error;
    if (run_convert(&convert, &error) != STATUS_OK) {
        code = command_failed(&command_convert, &error, convert.json);
    } else if (convert.json) {
        code = print_json(&convert);
    } else {
        print_text(&convert);
    }
    close_all(&convert);
    return code;
}

const struct command command_convert = {
    .name = "convert",
    .summary = "turn a folder or a tar of images into a dataset",
    .help = help,
    .run = run,
};
