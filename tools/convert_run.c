// Two passes over the sources: the first reads names, which decide classes, labels and which image
// goes where; the second reads images.
#include "tools/convert.h"

#include "formats/file.h"
#include "formats/limits.h"
#include "tools/measure.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
}

// --- first pass: names -------------------------------------------------------------------------

static enum status note_member(void *context, const struct source_member *member,
                               struct error *error)
{
    struct convert *convert = context;
    uint64_t hash = convert->fingerprint ^ member->size;
    for (const char *at = member->name; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
    }
    hash = (hash ^ (uint64_t)(uint32_t)member->label) * UINT64_C(0x9e3779b97f4a7c15);
    convert->fingerprint = hash ^ hash >> 32;
    if (member->size == SOURCE_SIZE_UNKNOWN) {
        convert->sizes_known = false;
    } else {
        convert->scanned_bytes += member->size;
    }
    convert->counts.images++;
    progress_line(&convert->progress, false, "reading names: %" PRIu64 " images",
                  convert->counts.images);
    return select_note(convert->select, member->name, error);
}

static enum status scan_source(struct convert *convert, size_t number, struct error *error)
{
    struct source *source;
    enum status status = source_open(&source, convert->sources.item[number], error);
    if (status == STATUS_OK) {
        status = source_plan_scan(convert->plan, source, note_member, convert, error);
        struct source_counts counts = source_counts(source);
        convert->counts.others += counts.others;
        convert->counts.links += counts.links;
    }
    if (status == STATUS_OK) {
        convert->described[number] = strdup(source_describe(source));
        status = convert->described[number] ? STATUS_OK : no_memory(error);
    }
    source_close(&source);
    return status;
}

static enum status scan_sources(struct convert *convert, struct error *error)
{
    double before = measure_seconds();
    enum status status = source_plan_open(&convert->plan, error);
    if (status == STATUS_OK && convert->options.select.labels != NULL) {
        source_plan_ignore_labels(convert->plan);
    }
    convert->sizes_known = true;
    for (size_t i = 0; i < convert->sources.count && status == STATUS_OK; i++) {
        status = scan_source(convert, i, error);
    }
    if (status == STATUS_OK && convert->counts.images == 0) {
        status = error_set(error, STATUS_NOT_FOUND, convert->sources.item[0], NOWHERE, NOWHERE,
                           "no JPEG or PNG files in it (%" PRIu64
                           " files are something else; archives in a folder are "
                           "named themselves: 'FOLDER/'*.tar)",
                           convert->counts.others + convert->counts.links);
    }
    if (status == STATUS_OK) {
        status = source_plan_finish(convert->plan, error);
    }
    convert->scan_seconds = measure_seconds() - before;
    return status ? status : select_finish(convert->select, convert->plan, error);
}

// --- traces: what the journal keeps of each image ----------------------------------------------

// The file's length, the stored length, flags, and the outcome of recoding.
enum { LENGTH_BITS = 26, FLAGS_AT = 2 * LENGTH_BITS, OUTCOME_AT = FLAGS_AT + 7 };
#define LENGTH_MASK ((UINT64_C(1) << LENGTH_BITS) - 1)
_Static_assert(LIMIT_IMAGE_BYTES <= LENGTH_MASK, "lengths of images fit");

enum {
    TRACE_JPEG = 1,
    TRACE_PROGRESSIVE = 2,
    TRACE_CMYK = 4,
    TRACE_GREY = 8,
    TRACE_MISNAMED = 16,
    TRACE_RESIZED = 32,
    TRACE_RECODED = 64
};

static bool named_otherwise(const char *name, bool png)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL && (png ? strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 ||
                                     strcasecmp(dot, ".jpe") == 0 || strcasecmp(dot, ".jfif") == 0
                               : strcasecmp(dot, ".png") == 0);
}

static uint64_t about_job(const struct convert_job *job)
{
    const struct image_info *info = &job->original;
    bool png = info->kind == IMAGE_PNG;
    uint64_t flags = (png ? 0u : TRACE_JPEG) |
                     (!png && info->progressive ? TRACE_PROGRESSIVE : 0u) |
                     (!png && info->components == 4 ? TRACE_CMYK : 0u) |
                     (!png && info->components == 1 ? TRACE_GREY : 0u) |
                     (named_otherwise(job->name, png) ? TRACE_MISNAMED : 0u) |
                     (job->resized ? TRACE_RESIZED : 0u) |
                     (job->item.info.kind == IMAGE_RECODED ? TRACE_RECODED : 0u);
    return (uint64_t)job->len | (uint64_t)job->item.len << LENGTH_BITS | flags << FLAGS_AT |
           (uint64_t)job->outcome << OUTCOME_AT;
}

static void count_image(struct convert_totals *totals, uint64_t about)
{
    uint64_t flags = about >> FLAGS_AT;
    bool jpeg = flags & TRACE_JPEG;
    struct kind_counts *kinds = &totals->kinds;
    totals->images++;
    totals->bytes += about & LENGTH_MASK;
    kinds->jpeg += jpeg;
    kinds->png += !jpeg;
    kinds->progressive += (flags & TRACE_PROGRESSIVE) != 0;
    kinds->cmyk += (flags & TRACE_CMYK) != 0;
    kinds->grey += (flags & TRACE_GREY) != 0;
    kinds->misnamed += (flags & TRACE_MISNAMED) != 0;
    kinds->resized += (flags & TRACE_RESIZED) != 0;
    if (!jpeg && !(flags & TRACE_RESIZED)) {
        totals->recoded.others++;
        return;
    }
    totals->recoded.outcomes[(about >> OUTCOME_AT) % RECODE_OUTCOMES]++;
    if (flags & TRACE_RECODED) {
        totals->recoded.before += about & LENGTH_MASK;
        totals->recoded.after += about >> LENGTH_BITS & LENGTH_MASK;
    }
}

// --- outputs -----------------------------------------------------------------------------------

void convert_part_path(const struct convert_output *output, unsigned rank, char *path, size_t size)
{
    snprintf(path, size, "%s.part-%05u", output->path, rank);
}

// A contiguous share of the output's images for each process.
static void set_share(const struct convert *convert, struct convert_output *output, uint64_t images)
{
    uint64_t rank = comm_rank(convert->comm), ranks = comm_ranks(convert->comm);
    output->first = images / ranks * rank + images % ranks * rank / ranks;
    output->end = images / ranks * (rank + 1) + images % ranks * (rank + 1) / ranks;
}

static enum status keep_skip(struct convert_output *output, const char *name, enum status status,
                             const char *reason, struct error *error)
{
    uint64_t number = output->totals.skipped++;
    if (number >= SKIPS_LISTED) {
        return STATUS_OK;
    }
    struct skip *skip = &output->skips[number];
    *skip = (struct skip){.name = strdup(name), .reason = strdup(reason), .status = status};
    return skip->name != NULL && skip->reason != NULL ? STATUS_OK : no_memory(error);
}

// Takes over what a killed conversion counted.
static enum status take_up(struct convert_output *output, struct error *error)
{
    struct convert_totals *totals = &output->totals;
    totals->resumed = dataset_writer_resumed(output->writer);
    for (uint64_t i = 0; i < totals->resumed; i++) {
        struct dataset_trace trace = dataset_writer_trace(output->writer, i);
        count_image(totals, trace.about);
        output->resume_at = trace.position + 1;
    }
    struct dataset_trace trace;
    const char *text;
    uint64_t next = 0; // remarks of a second run may repeat the first's
    enum status status = STATUS_OK;
    for (size_t i = 0;
         status == STATUS_OK && dataset_writer_remark_at(output->writer, i, &trace, &text); i++) {
        if (trace.position >= next && trace.position < output->resume_at) {
            next = trace.position + 1;
            const char *reason = strchr(text, '\n');
            char name[LIMIT_NAME_BYTES + 1];
            snprintf(name, sizeof name, "%.*s", (int)strcspn(text, "\n"), text);
            status =
                keep_skip(output, name, (enum status)trace.about, reason ? reason + 1 : "", error);
        }
    }
    return status;
}

static enum status open_output(struct convert *convert, struct convert_output *output,
                               struct error *error)
{
    output->skips = calloc(SKIPS_LISTED, sizeof *output->skips);
    char *provenance = convert_provenance(convert), *identity = convert_identity(convert, output);
    if (output->skips == NULL || provenance == NULL || identity == NULL) {
        free(provenance);
        free(identity);
        return no_memory(error);
    }
    struct dataset_writer_config config = {
        .store = convert->options.store,
        .shard_bytes = (uint64_t)convert->options.shard_mib << 20,
        .provenance = provenance,
        .replace = convert->options.force || comm_ranks(convert->comm) > 1,
        .journal = identity,
        .restart = convert->options.restart,
    };
    char path[560];
    snprintf(path, sizeof path, "%s", output->path);
    if (comm_ranks(convert->comm) > 1) {
        convert_part_path(output, comm_rank(convert->comm), path, sizeof path);
    }
    enum status status = dataset_writer_open(&output->writer, path, &config, error);
    free(provenance);
    free(identity);
    if (status == STATUS_EXISTS) {
        error_set(error, status, error->path, NOWHERE, NOWHERE,
                  "%s; repeat its command to go on, or give --restart to begin anew",
                  error->reason);
    }
    return status ? status : take_up(output, error);
}

static enum status open_outputs(struct convert *convert, struct error *error)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        struct convert_output *output = &convert->outputs[i];
        set_share(convert, output, select_split_images(convert->select, i));
        convert->work += output->end - output->first;
        if (output->end > output->first) {
            status = open_output(convert, output, error);
        }
        convert->done += output->totals.images + output->totals.skipped;
        if (output->totals.resumed > 0) {
            progress_notice(&convert->progress,
                            "%s: going on where it was interrupted, with %" PRIu64 " of %" PRIu64
                            " images done",
                            output->path, output->totals.resumed, output->end - output->first);
        }
    }
    return status;
}

// A name that is taken should be heard of at once, not after reading a terabyte.
static enum status name_outputs(struct convert *convert, struct error *error)
{
    convert->output_count = select_split_count(convert->select);
    convert->outputs = calloc(convert->output_count, sizeof *convert->outputs);
    if (convert->outputs == NULL) {
        return no_memory(error);
    }
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        struct convert_output *output = &convert->outputs[i];
        const char *name = select_split_name(convert->select, i);
        int len = snprintf(output->path, sizeof output->path, "%s%s%s", convert->options.output,
                           name ? "/" : "", name ? name : "");
        if ((size_t)len >= sizeof output->path) {
            return error_set(error, STATUS_INVALID, convert->options.output, NOWHERE, NOWHERE,
                             "the name is too long");
        }
        status = dataset_writer_check(output->path, convert->options.force, error);
    }
    if (status == STATUS_EXISTS && !convert->options.force) {
        error_set(error, status, error->path, NOWHERE, NOWHERE,
                  "%s; choose another name, or --force to replace a dataset", error->reason);
    }
    return status;
}

// --- second pass: images -----------------------------------------------------------------------

// Records a bad image, or makes it the failure of the whole.
static enum status judge(struct convert *convert, struct convert_output *output,
                         const struct convert_job *job, struct error *error)
{
    const struct error *bad = &job->error;
    if (!convert->options.skip_bad || bad->status == STATUS_NO_MEMORY) {
        *error = *bad;
        return bad->status;
    }
    enum status status = keep_skip(output, job->name, bad->status, bad->reason, error);
    char text[LIMIT_NAME_BYTES + 1200];
    if (status == STATUS_OK) {
        const struct dataset_trace trace = {.position = job->position, .about = bad->status};
        snprintf(text, sizeof text, "%s\n%s", job->name, bad->reason);
        status = dataset_writer_remark(output->writer, &trace, text, error);
    }
    if (output->totals.skipped <= SKIPS_PRINTED) {
        progress_notice(&convert->progress, "skipped: %s", error_text(bad, text, sizeof text));
    }
    return status;
}

static void show(struct convert *convert)
{
    progress_bar_bytes(&convert->progress, "converting", convert->done, convert->work, "images",
                       convert->done_bytes);
}

// Writes the oldest image under way.
static enum status finish_oldest(struct convert *convert, struct error *error)
{
    struct convert_job *job = convert_pool_oldest(convert->pool);
    struct convert_output *output = &convert->outputs[job->output];
    enum status status = job->status;
    if (status == STATUS_OK) {
        uint64_t about = about_job(job);
        job->item.trace = (struct dataset_trace){.position = job->position, .about = about};
        status = dataset_writer_add_packed(output->writer, &job->item, &job->packed, error);
        count_image(&output->totals, about);
    } else {
        error_set(&job->error, status, job->place, job->error.offset, NOWHERE, "%s",
                  job->error.reason);
        status = judge(convert, output, job, error);
    }
    convert->done++;
    convert->done_bytes += job->len;
    convert_pool_release(convert->pool);
    show(convert);
    return status;
}

// Reads the member into the job. Only what ends the source is returned; a bad member goes on as a
// failed job, so that bad images are met in order.
static enum status fill_job(struct convert *convert, struct source *source,
                            const struct source_member *member, struct convert_job *job,
                            struct error *error)
{
    const char *name = source_plan_name(convert->plan, member, &job->label);
    job->label = select_label(convert->select, job->position, job->label);
    snprintf(job->name, LIMIT_NAME_BYTES + 1, "%s", name);
    snprintf(job->place, sizeof job->place, "%s/%s", source_path(source), member->name);
    job->error = (struct error){.offset = NOWHERE, .record = NOWHERE};
    job->len = 0;
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
    if (job->status != STATUS_OK && job->status != STATUS_LIMIT && job->status != STATUS_CORRUPT) {
        *error = job->error;
        return job->status;
    }
    return STATUS_OK;
}

// Whether image number `position` is to be converted here and now, and into which output.
static bool wanted(struct convert *convert, uint64_t position, uint8_t *output)
{
    *output = select_split(convert->select, position);
    if (*output == SELECT_NOWHERE) {
        return false;
    }
    struct convert_output *into = &convert->outputs[*output];
    uint64_t number = into->seen++;
    return number >= into->first && number < into->end && position >= into->resume_at;
}

static enum status convert_member(struct convert *convert, struct source *source,
                                  const struct source_member *member, struct error *error)
{
    uint64_t position = convert->position++;
    uint8_t output;
    if (!wanted(convert, position, &output)) {
        return STATUS_OK;
    }
    struct convert_job *job = convert_pool_free_job(convert->pool);
    enum status status = STATUS_OK;
    if (job == NULL) {
        status = finish_oldest(convert, error);
        job = convert_pool_free_job(convert->pool);
    }
    if (status == STATUS_OK) {
        job->position = position;
        job->output = output;
        status = fill_job(convert, source, member, job, error);
    }
    if (status == STATUS_OK) {
        convert_pool_submit(convert->pool);
    }
    return status;
}

static enum status convert_source(struct convert *convert, const char *path, struct error *error)
{
    struct source *source;
    struct source_member member;
    enum status status = source_open(&source, path, error);
    while (status == STATUS_OK && (status = source_next(source, &member, error)) == STATUS_OK) {
        status = convert_member(convert, source, &member, error);
    }
    source_close(&source);
    return status == STATUS_END ? STATUS_OK : status;
}

static enum status check_outputs(const struct convert *convert, struct error *error)
{
    for (size_t i = 0; i < convert->output_count; i++) {
        const struct convert_output *output = &convert->outputs[i];
        const struct convert_totals *totals = &output->totals;
        if (totals->images + totals->skipped != output->end - output->first) {
            return error_set(error, STATUS_IO, convert->sources.item[0], NOWHERE, NOWHERE,
                             "the sources changed while they were read: convert again");
        }
        if (totals->images == 0 && output->end > output->first) {
            return error_set(error, STATUS_CORRUPT, convert->sources.item[0], NOWHERE, NOWHERE,
                             "none of its %" PRIu64 " images is usable", totals->skipped);
        }
    }
    return STATUS_OK;
}

static enum status convert_all(struct convert *convert, struct error *error)
{
    double before = measure_seconds();
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->sources.count && status == STATUS_OK; i++) {
        status = convert_source(convert, convert->sources.item[i], error);
    }
    while (status == STATUS_OK && convert_pool_oldest(convert->pool) != NULL) {
        status = finish_oldest(convert, error);
    }
    convert->convert_seconds = measure_seconds() - before;
    return status ? status : check_outputs(convert, error);
}

// --- the whole ---------------------------------------------------------------------------------

static unsigned thread_count(const struct convert *convert)
{
    cpu_set_t cpus;
    if (convert->options.threads > 0) {
        return (unsigned)convert->options.threads;
    }
    int count = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    unsigned mine = (unsigned)count / comm_sharing(convert->comm);
    return mine < 1 ? 1 : mine < CONVERT_THREADS_MAX ? mine : CONVERT_THREADS_MAX;
}

static enum status prepare(struct convert *convert, struct error *error)
{
    convert->described = calloc(convert->sources.count, sizeof *convert->described);
    enum status status = convert->described ? STATUS_OK : no_memory(error);
    if (status == STATUS_OK) {
        status = select_open(&convert->select, &convert->options.select, error);
    }
    if (status == STATUS_OK) {
        status = name_outputs(convert, error);
    }
    progress_begin(&convert->progress, convert->options.quiet || comm_rank(convert->comm) > 0);
    if (status == STATUS_OK) {
        status = scan_sources(convert, error);
    }
    progress_end(&convert->progress);
    for (size_t i = 0; status == STATUS_OK && select_notice(convert->select, i) != NULL; i++) {
        progress_notice(&convert->progress, "%s", select_notice(convert->select, i));
    }
    return status;
}

static enum status commit(struct convert *convert, struct error *error)
{
    double before = measure_seconds();
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        struct convert_output *output = &convert->outputs[i];
        progress_line(&convert->progress, false, "writing %s to disk", output->path);
        if (output->writer != NULL) {
            status = dataset_writer_commit(&output->writer, select_classes(convert->select),
                                           select_class_count(convert->select), error);
        }
    }
    convert->commit_seconds = measure_seconds() - before;
    return status;
}

static enum status convert_here(struct convert *convert, struct error *error)
{
    enum status status = prepare(convert, error);
    if (status == STATUS_OK) {
        status = open_outputs(convert, error);
    }
    if (status == STATUS_OK) {
        const struct convert_work work = {.store = convert->options.store,
                                          .verify = !convert->options.no_verify,
                                          .recode = convert->options.recode,
                                          .resize = convert->options.resize};
        status = convert_pool_open(&convert->pool, thread_count(convert), &work, error);
    }
    if (status == STATUS_OK) {
        // What is left is estimated from here.
        progress_begin(&convert->progress, convert->progress.quiet);
        progress_start_at(&convert->progress, convert->done);
        status = convert_all(convert, error);
    }
    return status ? status : commit(convert, error);
}

enum status convert_run(struct convert *convert, struct error *error)
{
    enum status status = convert_here(convert, error);
    status = comm_agree(convert->comm, status, NULL, error);
    if (status == STATUS_OK && comm_ranks(convert->comm) > 1) {
        status = convert_join(convert, error);
    }
    progress_end(&convert->progress);
    return status;
}

void convert_close_writers(struct convert *convert)
{
    for (size_t i = 0; i < convert->output_count; i++) {
        dataset_writer_abort(&convert->outputs[i].writer);
    }
}

static void close_output(struct convert_output *output)
{
    for (size_t i = 0; output->skips != NULL && i < SKIPS_LISTED; i++) {
        free(output->skips[i].name);
        free(output->skips[i].reason);
    }
    free(output->skips);
}

void convert_close(struct convert *convert)
{
    convert_pool_close(&convert->pool);
    convert_close_writers(convert);
    for (size_t i = 0; i < convert->output_count; i++) {
        close_output(&convert->outputs[i]);
    }
    free(convert->outputs);
    select_close(&convert->select);
    source_plan_close(&convert->plan);
    for (size_t i = 0; convert->described != NULL && i < convert->sources.count; i++) {
        free(convert->described[i]);
    }
    free(convert->described);
    braces_free(&convert->sources);
}
