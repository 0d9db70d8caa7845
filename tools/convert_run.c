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

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
}

static enum status check_stop(const struct convert *convert, struct error *error)
{
    return *convert->stopped ? error_set(error, STATUS_STOPPED, NULL, NOWHERE, NOWHERE, "stopped")
                             : STATUS_OK;
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
    enum status status = check_stop(convert, error);
    return status ? status : select_note(convert->select, member->name, error);
}

static enum status scan_source(struct convert *convert, size_t number, struct error *error)
{
    struct source *source;
    enum status status = source_open_names(&source, convert->sources.item[number], error);
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
                           "no JPEG or PNG files in it (%" PRIu64 " files are something else)",
                           convert->counts.others + convert->counts.links);
    }
    if (status == STATUS_OK) {
        status = source_plan_finish(convert->plan, error);
    }
    convert->scan_seconds = measure_seconds() - before;
    return status ? status : select_finish(convert->select, convert->plan, error);
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
    enum status status = convert_keep_skip(output, job->name, bad->status, bad->reason, error);
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
        uint64_t about = convert_trace(job);
        job->item.trace = (struct dataset_trace){.position = job->position, .about = about};
        status = dataset_writer_add_packed(output->writer, &job->item, &job->packed, error);
        convert_count(&output->totals, about);
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
    enum status status = check_stop(convert, error);
    if (status != STATUS_OK || !wanted(convert, position, &output)) {
        return status;
    }
    struct convert_job *job = convert_pool_free_job(convert->pool);
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

enum status convert_check_images(const struct convert *convert, const struct convert_output *output,
                                 struct error *error)
{
    return output->totals.images > 0 || output->totals.skipped == 0
               ? STATUS_OK
               : error_set(error, STATUS_CORRUPT, convert->sources.item[0], NOWHERE, NOWHERE,
                           "none of its %" PRIu64 " images is usable", output->totals.skipped);
}

static enum status check_outputs(const struct convert *convert, struct error *error)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        const struct convert_output *output = &convert->outputs[i];
        const struct convert_totals *totals = &output->totals;
        if (totals->images + totals->skipped != output->end - output->first) {
            return error_set(error, STATUS_IO, convert->sources.item[0], NOWHERE, NOWHERE,
                             "the sources changed while they were read: convert again");
        }
        if (comm_ranks(convert->comm) == 1) { // else they are looked at together
            status = convert_check_images(convert, output, error);
        }
    }
    return status;
}

static enum status convert_all(struct convert *convert, struct error *error)
{
    double before = measure_seconds();
    enum status status = STATUS_OK;
    bool work = convert->done < convert->work;
    for (size_t i = 0; i < convert->sources.count && work && status == STATUS_OK; i++) {
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

// All processes learn whether there is but to put datasets in place; the first one looks.
static enum status share_remains(struct convert *convert, enum status status, struct error *error)
{
    unsigned found = convert->places.found;
    status = comm_agree(convert->comm, status, &found, error);
    convert->placing = found != 0;
    return status;
}

static enum status prepare(struct convert *convert, struct error *error)
{
    bool first = comm_rank(convert->comm) == 0;
    convert->described = calloc(convert->sources.count, sizeof *convert->described);
    enum status status = convert->described ? STATUS_OK : no_memory(error);
    if (status == STATUS_OK) {
        status = select_open(&convert->select, &convert->options.select, error);
    }
    if (status == STATUS_OK) {
        status = convert_name_outputs(convert, error);
    }
    if (status == STATUS_OK && first) {
        status = convert_look_for_remains(convert, error);
    }
    status = comm_agree(convert->comm, status, NULL, error);
    progress_begin(&convert->progress, convert->options.quiet || !first);
    if (status == STATUS_OK) {
        status = scan_sources(convert, error);
    }
    progress_end(&convert->progress);
    for (size_t i = 0; status == STATUS_OK && select_notice(convert->select, i) != NULL; i++) {
        progress_notice(&convert->progress, "%s", select_notice(convert->select, i));
    }
    if (status == STATUS_OK) {
        status = convert_judge_remains(convert, error);
    }
    return share_remains(convert, status, error);
}

static enum status convert_images(struct convert *convert, struct error *error)
{
    const struct convert_work work = {.store = convert->options.store,
                                      .verify = !convert->options.no_verify,
                                      .recode = convert->options.recode,
                                      .resize = convert->options.resize};
    enum status status = convert_open_outputs(convert, error);
    if (status == STATUS_OK) {
        status = convert_pool_open(&convert->pool, thread_count(convert), &work, error);
    }
    if (status == STATUS_OK) {
        // What is left is estimated from here.
        progress_begin(&convert->progress, convert->progress.quiet);
        progress_start_at(&convert->progress, convert->done);
        status = convert_all(convert, error);
    }
    status = status ? status : check_stop(convert, error);
    return status ? status : convert_finish_outputs(convert, error);
}

// A source that fails because the person stops its reader too was not damaged.
static enum status explain_stop(const struct convert *convert, enum status status,
                                struct error *error)
{
    return status ? (*convert->stopped ? check_stop(convert, error) : status) : STATUS_OK;
}

enum status convert_run(struct convert *convert, struct error *error)
{
    bool several = comm_ranks(convert->comm) > 1;
    enum status status = prepare(convert, error);
    if (status == STATUS_OK && !convert->placing) {
        status = explain_stop(convert, convert_images(convert, error), error);
        status = comm_agree(convert->comm, status, NULL, error);
        if (status == STATUS_OK && several) {
            status = convert_join(convert, error);
        }
    }
    if (status == STATUS_OK && comm_rank(convert->comm) == 0) {
        status = convert_place_outputs(convert, error);
    }
    progress_end(&convert->progress);
    return several ? comm_agree(convert->comm, status, NULL, error) : status;
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
