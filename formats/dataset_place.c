// Puts finished datasets in place, one rename each. Before the first of them the journal of the
// last one is told the ids of all: whatever stands under the names after a kill, it is known which
// of it is ours. That journal moves along and is removed when all is done.
#include "formats/dataset_internal.h"
#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

// With a dataset there already the two change places, so that at every moment one of them stands
// under the name.
static enum status install(struct dataset_writer *writer, struct error *error)
{
    if (!writer->replace || !file_exists(writer->directory)) {
        return file_rename(writer->partial, writer->directory, error);
    }
    int errnum = file_fault ? file_fault("rename", writer->directory) : 0;
    if (errnum == 0 &&
        renameat2(AT_FDCWD, writer->partial, AT_FDCWD, writer->directory, RENAME_EXCHANGE) != 0) {
        errnum = errno;
    }
    return errnum ? error_errno(error, errnum, writer->directory, NOWHERE,
                                "put the new dataset in the old one's place")
                  : file_sync_directory(writer->parent, error);
}

// Whose journal tells of all.
static size_t last_of(struct dataset_writer *const *writers, size_t count)
{
    while (count > 1 && writers[count - 1] == NULL) {
        count--;
    }
    return count - 1;
}

static enum status tell_places(struct dataset_writer **writers, size_t count, const void *about,
                               size_t len, struct error *error)
{
    uint64_t *ids = calloc(count, sizeof *ids);
    if (ids == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory to write datasets");
    }
    for (size_t i = 0; i < count; i++) {
        ids[i] = writers[i] ? writers[i]->builder.id : 0;
    }
    struct journal *journal = &writers[last_of(writers, count)]->journal;
    enum status status = journal_places(journal, ids, count, about, len, error);
    free(ids);
    return status;
}

enum status dataset_place(struct dataset_writer **writers, size_t count, const void *about,
                          size_t len, struct error *error)
{
    enum status status = tell_places(writers, count, about, len, error);
    size_t last = last_of(writers, count);
    for (size_t i = 0; i <= last && status == STATUS_OK; i++) {
        struct dataset_writer *writer = writers[i];
        if (writer == NULL || writer->placed) {
            continue;
        }
        status = i < last ? journal_end(&writer->journal, error) : STATUS_OK;
        status = status ? status : install(writer, error);
        writer->placed = status == STATUS_OK;
    }
    return status;
}

enum status dataset_settle(struct dataset_writer **writers, size_t count, struct error *error)
{
    struct dataset_writer *last = writers[last_of(writers, count)];
    if (last->journal.path[0] != '\0') {
        journal_in(&last->journal, last->directory);
    }
    enum status status = journal_end(&last->journal, error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        if (writers[i] != NULL && writers[i]->replace) {
            dataset_remove(writers[i]->partial); // the old one
        }
        if (writers[i] != NULL) {
            dataset_writer_free(&writers[i]);
        }
    }
    return status;
}

// --- after a kill ------------------------------------------------------------------------------

static bool holds(const char *directory, uint64_t id)
{
    struct dataset *dataset;
    bool same = dataset_open(&dataset, directory, NULL) == STATUS_OK && dataset_id(dataset) == id;
    dataset_close(&dataset);
    return same;
}

// Reads the journal of the last of the directories that tells of `count` places.
static enum status find_places(struct journal *journal, const char *const *directories,
                               size_t count, struct journal_places *places, struct error *error)
{
    enum status status = STATUS_OK;
    places->count = 0;
    for (size_t i = 2 * count; i-- > 0 && status == STATUS_OK && places->count != count;) {
        char path[PATH_BYTES + 16];
        snprintf(path, sizeof path, "%s%s", directories[i / 2], i % 2 ? "" : ".partial");
        journal_close(journal);
        status = journal_find_places(journal, path, places, error);
    }
    return status;
}

// A writer that has nothing left to do but to put its dataset in place; NULL when the one of this
// id is neither there nor beside it.
static enum status take_up(struct dataset_writer **out, const char *directory, uint64_t id,
                           bool replace, struct error *error)
{
    struct dataset_writer *writer = calloc(1, sizeof *writer);
    *out = writer;
    if (writer == NULL) {
        return error_errno(error, ENOMEM, directory, NOWHERE, "allocate memory to write a dataset");
    }
    *writer = (struct dataset_writer){.lock = -1,
                                      .journal = {.fd = -1},
                                      .replace = replace,
                                      .keep = true,
                                      .finished = true,
                                      .store = &store_shards, // none is open
                                      .builder = {.id = id}};
    enum status status = dataset_writer_name(writer, directory, error);
    writer->placed = status == STATUS_OK && holds(writer->directory, id);
    if (status == STATUS_OK && !writer->placed && !holds(writer->partial, id)) {
        dataset_writer_free(out);
        return STATUS_OK;
    }
    if (status == STATUS_OK && !writer->placed) {
        status = dataset_writer_check(directory, replace, error);
    }
    const char *at = writer->placed ? writer->directory : writer->partial;
    journal_in(&writer->journal, at);
    return status ? status : dataset_writer_lock(writer, at, error);
}

static enum status take_up_all(struct dataset_writer **writers, const char *const *directories,
                               const struct journal_places *places, bool replace, bool *found,
                               struct error *error)
{
    enum status status = STATUS_OK;
    *found = places->count > 0;
    for (size_t i = 0; i < places->count && *found && status == STATUS_OK; i++) {
        uint64_t id = index_load64(places->ids + 8 * i);
        if (id != 0) {
            status = take_up(&writers[i], directories[i], id, replace, error);
            *found = writers[i] != NULL;
        }
    }
    *found = *found && writers[last_of(writers, places->count)] != NULL;
    return status;
}

enum status dataset_place_find(struct dataset_writer **writers, const char *const *directories,
                               size_t count, bool replace, struct dataset_places *found,
                               struct error *error)
{
    struct journal journal = {.fd = -1};
    struct journal_places places;
    for (size_t i = 0; i < count; i++) {
        writers[i] = NULL;
    }
    *found = (struct dataset_places){0};
    enum status status = find_places(&journal, directories, count, &places, error);
    if (status == STATUS_OK && places.count == count) {
        status = take_up_all(writers, directories, &places, replace, &found->found, error);
    }
    if (status != STATUS_OK || !found->found) {
        found->found = false;
        journal_close(&journal);
        for (size_t i = 0; i < count; i++) {
            dataset_writer_abort(&writers[i]);
        }
        return status;
    }
    *found = (struct dataset_places){.found = true, .about = places.about, .len = places.about_len};
    for (size_t i = 0; i < count; i++) {
        found->begun |= writers[i] != NULL && writers[i]->placed;
    }
    writers[last_of(writers, count)]->journal = journal;
    return STATUS_OK;
}

bool dataset_places_are(struct dataset_writer *const *writers, size_t count, const char *journal)
{
    return journal_key_is(&writers[last_of(writers, count)]->journal, journal);
}
