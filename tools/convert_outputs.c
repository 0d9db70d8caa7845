// The datasets that a conversion makes: their names, what a killed conversion left of them, and
// their way into place.
#include "tools/convert.h"

#include "formats/limits.h"
#include "tools/measure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
}

// --- names -------------------------------------------------------------------------------------

// The writers of whole datasets, which are put in place: this process's own or joined ones.
static struct dataset_writer **whole(const struct convert *convert, struct convert_output *output)
{
    return comm_ranks(convert->comm) > 1 ? &output->joined : &output->writer;
}

static enum status advise(const struct convert *convert, enum status status, struct error *error)
{
    return status == STATUS_EXISTS && !convert->options.force
               ? error_set(error, status, error->path, NOWHERE, NOWHERE,
                           "%s; choose another name, or --force to replace a dataset",
                           error->reason)
               : status;
}

static enum status check_names(const struct convert *convert, struct error *error)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        status = dataset_writer_check(convert->outputs[i].path, convert->options.force, error);
    }
    return advise(convert, status, error);
}

// Takes up datasets that were complete and are not all in place.
static enum status find_places(struct convert *convert, struct error *error)
{
    const char *paths[SELECT_SPLITS_MAX] = {NULL};
    struct dataset_writer *writers[SELECT_SPLITS_MAX] = {NULL};
    size_t count = convert->output_count;
    for (size_t i = 0; i < count; i++) {
        paths[i] = convert->outputs[i].path;
    }
    enum status status =
        dataset_place_find(writers, paths, count, convert->options.force, &convert->places, error);
    for (size_t i = 0; i < count && convert->places.found; i++) {
        *whole(convert, &convert->outputs[i]) = writers[i];
    }
    return advise(convert, status, error);
}

enum status convert_name_outputs(struct convert *convert, struct error *error)
{
    convert->output_count = select_split_count(convert->select);
    convert->outputs = calloc(convert->output_count, sizeof *convert->outputs);
    if (convert->outputs == NULL) {
        return no_memory(error);
    }
    const char *given = convert->options.output;
    size_t given_len = strlen(given);
    while (given_len > 1 && given[given_len - 1] == '/') {
        given_len--;
    }
    for (size_t i = 0; i < convert->output_count; i++) {
        struct convert_output *output = &convert->outputs[i];
        const char *name = select_split_name(convert->select, i);
        int len = snprintf(output->path, sizeof output->path, "%.*s%s%s", (int)given_len, given,
                           name ? "/" : "", name ? name : "");
        if ((size_t)len >= sizeof output->path) {
            return error_set(error, STATUS_INVALID, convert->options.output, NOWHERE, NOWHERE,
                             "the name is too long");
        }
    }
    return STATUS_OK;
}

enum status convert_look_for_remains(struct convert *convert, struct error *error)
{
    enum status status = STATUS_OK;
    if (!convert->options.restart) {
        status = find_places(convert, error);
    }
    if (status == STATUS_OK && !convert->places.found) {
        status = check_names(convert, error);
    }
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        status = convert_check_parts(convert, &convert->outputs[i], error);
    }
    return status;
}

enum status convert_judge_remains(struct convert *convert, struct error *error)
{
    struct dataset_writer *writers[SELECT_SPLITS_MAX] = {NULL};
    size_t count = convert->output_count;
    if (!convert->places.found) {
        return STATUS_OK;
    }
    size_t last = 0; // the journal that tells of all is that of the last one with images
    for (size_t i = 0; i < count; i++) {
        writers[i] = *whole(convert, &convert->outputs[i]);
        last = select_split_images(convert->select, i) > 0 ? i : last;
    }
    char *identity = convert_identity(convert, last, 0, select_split_images(convert->select, last));
    bool ours = identity != NULL && dataset_places_are(writers, count, identity);
    enum status status = identity ? STATUS_OK : no_memory(error);
    free(identity);
    if (ours) {
        progress_notice(&convert->progress,
                        "%s: all images were done; what is left is to put the "
                        "dataset%s in place",
                        convert->options.output, count > 1 ? "s" : "");
        return convert_outcome_read(convert, error);
    }
    convert_close_writers(convert);
    convert->places = (struct dataset_places){0};
    return status ? status : check_names(convert, error);
}

// --- opening -----------------------------------------------------------------------------------

uint64_t convert_share(uint64_t images, unsigned rank, unsigned ranks)
{
    return images / ranks * rank + images % ranks * rank / ranks;
}

enum status convert_keep_skip(struct convert_output *output, const char *name, enum status status,
                              const char *reason, struct error *error)
{
    uint64_t number = output->totals.skipped++;
    if (number >= SKIPS_LISTED) {
        return STATUS_OK;
    }
    if (output->skips == NULL) {
        output->skips = calloc(SKIPS_LISTED, sizeof *output->skips);
    }
    if (output->skips == NULL) {
        return no_memory(error);
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
        convert_count(totals, trace.about);
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
            status = convert_keep_skip(output, name, (enum status)trace.about,
                                       reason ? reason + 1 : "", error);
        }
    }
    return status;
}

// The writer of images `first` to `end` of the output, in `path`.
static enum status open_writer(const struct convert *convert, size_t number, const char *path,
                               uint64_t first, uint64_t end, struct dataset_writer **writer,
                               struct error *error)
{
    char *provenance = convert_provenance(convert);
    char *identity = convert_identity(convert, number, first, end);
    enum status status = provenance && identity ? STATUS_OK : no_memory(error);
    if (status == STATUS_OK) {
        const struct dataset_writer_config config = {
            .store = convert->options.store,
            .shard_bytes = (uint64_t)convert->options.shard_mib << 20,
            .provenance = provenance,
            .replace = convert->options.force,
            .journal = identity,
            .restart = convert->options.restart,
        };
        status = dataset_writer_open(writer, path, &config, error);
    }
    free(provenance);
    free(identity);
    if (status == STATUS_EXISTS) {
        error_set(error, status, error->path, NOWHERE, NOWHERE,
                  "%s; repeat its command to go on, or give --restart to begin anew",
                  error->reason);
    }
    return status;
}

static enum status open_output(struct convert *convert, size_t number, struct error *error)
{
    struct convert_output *output = &convert->outputs[number];
    uint64_t images = select_split_images(convert->select, number);
    unsigned rank = comm_rank(convert->comm), ranks = comm_ranks(convert->comm);
    output->first = convert_share(images, rank, ranks);
    output->end = convert_share(images, rank + 1, ranks);
    char path[PART_PATH_BYTES];
    snprintf(path, sizeof path, "%s", output->path);
    enum status status = STATUS_OK;
    if (ranks > 1) {
        convert_part_path(output, rank, ranks, path, sizeof path);
    }
    if (ranks > 1 && rank == 0 && images > 0) {
        status = open_writer(convert, number, output->path, 0, images, &output->joined, error);
    }
    if (status == STATUS_OK && output->end > output->first) {
        status =
            open_writer(convert, number, path, output->first, output->end, &output->writer, error);
        status = status ? status : take_up(output, error);
    }
    return status;
}

enum status convert_open_outputs(struct convert *convert, struct error *error)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        struct convert_output *output = &convert->outputs[i];
        status = open_output(convert, i, error);
        convert->work += output->end - output->first;
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

// --- completing --------------------------------------------------------------------------------

enum status convert_finish_outputs(struct convert *convert, struct error *error)
{
    double before = measure_seconds();
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        struct convert_output *output = &convert->outputs[i];
        progress_line(&convert->progress, false, "writing %s to disk", output->path);
        if (output->writer != NULL && output->totals.images == 0) {
            dataset_writer_abort(&output->writer); // other processes may have some
        } else if (output->writer != NULL) {
            status = dataset_writer_finish(output->writer, select_classes(convert->select),
                                           select_class_count(convert->select), error);
        }
    }
    convert->commit_seconds = measure_seconds() - before;
    return status;
}

enum status convert_place_outputs(struct convert *convert, struct error *error)
{
    double before = measure_seconds();
    struct dataset_writer *writers[SELECT_SPLITS_MAX] = {NULL};
    size_t count = convert->output_count, len = 0;
    char *outcome = convert->places.found ? NULL : convert_outcome(convert, &len);
    enum status status = outcome != NULL || convert->places.found ? STATUS_OK : no_memory(error);
    for (size_t i = 0; i < count; i++) {
        writers[i] = *whole(convert, &convert->outputs[i]);
    }
    if (status == STATUS_OK) {
        status = dataset_place(writers, count, outcome, len, error);
    }
    free(outcome);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        convert_remove_parts(convert, &convert->outputs[i]);
    }
    if (status == STATUS_OK) {
        status = dataset_settle(writers, count, error);
    }
    for (size_t i = 0; i < count; i++) {
        *whole(convert, &convert->outputs[i]) = writers[i];
    }
    convert->commit_seconds += measure_seconds() - before;
    return status;
}

void convert_close_writers(struct convert *convert)
{
    for (size_t i = 0; i < convert->output_count; i++) {
        dataset_writer_abort(&convert->outputs[i].writer);
        dataset_writer_abort(&convert->outputs[i].joined);
    }
}
