// Writing a dataset: everything goes to DIRECTORY.partial, the index last; dataset_place.c puts it
// in place. The directory is locked while it is written, so a second writer is turned away and a
// killed one's remains can be told from a living one's.
#include "formats/dataset_internal.h"
#include "formats/file.h"
#include "formats/limits.h"
#include "formats/name.h"
#include "formats/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

// --- the partial directory ---------------------------------------------------------------------

static bool starts_with(const char *name, const char *start)
{
    return strncmp(name, start, strlen(start)) == 0;
}

static bool written_by_us(const char *name)
{
    static const char *const starts[] = {"shard-", INDEX_FILE_NAME, "data.mdb", "lock.mdb",
                                         JOURNAL_FILE_NAME};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        if (starts_with(name, starts[i])) {
            return true;
        }
    }
    return false;
}

// Removes the files whose names start with `start` from a directory that holds nothing but a
// dataset's files; refuses to touch anything else.
static enum status remove_files(const char *path, const char *start, struct error *error)
{
    DIR *entries = opendir(path);
    if (entries == NULL) {
        return error_errno(error, errno, path, NOWHERE, "open the directory");
    }
    enum status status = STATUS_OK;
    struct dirent *entry;
    while (status == STATUS_OK && (entry = readdir(entries)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
            continue;
        }
        if (!written_by_us(name)) {
            status = error_set(error, STATUS_EXISTS, path, NOWHERE, NOWHERE,
                               "holds '%.100s', which is no part of a dataset: move it away first",
                               name);
        } else if (starts_with(name, start) && unlinkat(dirfd(entries), name, 0) != 0) {
            status = error_errno(error, errno, path, NOWHERE, "remove a file of the directory");
        }
    }
    closedir(entries);
    return status;
}

static enum status empty_directory(const char *path, struct error *error)
{
    return remove_files(path, "", error);
}

void dataset_remove(const char *path)
{
    if (empty_directory(path, NULL) == STATUS_OK) {
        rmdir(path);
    }
}

enum status dataset_writer_lock(struct dataset_writer *writer, const char *directory,
                                struct error *error)
{
    writer->lock = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (writer->lock < 0) {
        return error_errno(error, errno, directory, NOWHERE, "open the directory");
    }
    if (flock(writer->lock, LOCK_EX | LOCK_NB) != 0) {
        int errnum = errno;
        close(writer->lock);
        writer->lock = -1;
        return errnum == EWOULDBLOCK
                   ? error_set(error, STATUS_DENIED, directory, NOWHERE, NOWHERE,
                               "another process is writing this dataset")
                   : error_errno(error, errnum, directory, NOWHERE, "lock the directory");
    }
    return STATUS_OK;
}

// Makes or takes over the partial directory; on success it is ours alone.
static enum status claim_partial(struct dataset_writer *writer, struct error *error)
{
    if (mkdir(writer->partial, 0755) != 0 && errno != EEXIST) {
        return error_errno(error, errno, writer->partial, NOWHERE, "make the directory");
    }
    return dataset_writer_lock(writer, writer->partial, error);
}

// --- open --------------------------------------------------------------------------------------

enum status dataset_writer_name(struct dataset_writer *writer, const char *directory,
                                struct error *error)
{
    size_t len = strlen(directory);
    while (len > 1 && directory[len - 1] == '/') {
        len--;
    }
    const char *last = memrchr(directory, '/', len);
    const char *name = last ? last + 1 : directory;
    size_t name_len = (size_t)(directory + len - name);
    bool names_one = name_len > 0 && !(name_len == 1 && name[0] == '.') &&
                     !(name_len == 2 && name[0] == '.' && name[1] == '.');
    if (len >= sizeof writer->directory || !names_one) {
        return error_set(error, STATUS_INVALID, directory, NOWHERE, NOWHERE,
                         "not the name of a directory to make");
    }
    snprintf(writer->directory, sizeof writer->directory, "%.*s", (int)len, directory);
    snprintf(writer->partial, sizeof writer->partial, "%s.partial", writer->directory);
    int parent_len = last == directory ? 1 : (int)(name - directory) - 1;
    snprintf(writer->parent, sizeof writer->parent, "%.*s", last ? parent_len : 1,
             last ? directory : ".");
    return STATUS_OK;
}

// What stands at the target already must be a dataset that may be replaced.
static enum status check_target(const struct dataset_writer *writer, struct error *error)
{
    struct stat about;
    if (lstat(writer->directory, &about) != 0) {
        return errno == ENOENT ? STATUS_OK
                               : error_errno(error, errno, writer->directory, NOWHERE, "look at");
    }
    if (!writer->replace) {
        return error_set(error, STATUS_EXISTS, writer->directory, NOWHERE, NOWHERE,
                         "exists already");
    }
    char index[PATH_BYTES + 32];
    snprintf(index, sizeof index, "%s/" INDEX_FILE_NAME, writer->directory);
    return S_ISDIR(about.st_mode) && file_exists(index)
               ? STATUS_OK
               : error_set(error, STATUS_EXISTS, writer->directory, NOWHERE, NOWHERE,
                           "exists and is not a dataset: not replaced");
}

enum status dataset_writer_check(const char *directory, bool replace, struct error *error)
{
    struct dataset_writer writer = {.replace = replace};
    enum status status = dataset_writer_name(&writer, directory, error);
    return status ? status : check_target(&writer, error);
}

// --- going on from a killed writer -------------------------------------------------------------

static enum status checkpoint(void *context, uint64_t records, uint64_t mark, bool synced,
                              struct error *error)
{
    struct dataset_writer *writer = context;
    enum status status =
        synced && writer->journaled ? file_sync_directory(writer->partial, error) : STATUS_OK;
    return status ? status
                  : journal_checkpoint(&writer->journal, &writer->builder, records, mark, synced,
                                       error);
}

// Takes up the work of the journal that was found; *resumed is false when nothing of it is left.
static enum status resume(struct dataset_writer *writer, const struct dataset_writer_config *config,
                          const struct store_owner *owner, bool *resumed, struct error *error)
{
    enum status status = writer->store->open(&writer->state, writer->partial, config, owner, error);
    *resumed = false;
    if (status == STATUS_OK) {
        status = journal_replay(&writer->journal, writer->store->has, writer->state,
                                &writer->builder, &writer->names, resumed, error);
    }
    if (status == STATUS_OK && *resumed) {
        status = writer->store->resume(writer->state, &writer->builder, error);
    }
    if (status == STATUS_OK && *resumed) { // killed in its last moments
        status = remove_files(writer->partial, INDEX_FILE_NAME, error);
    }
    if (status != STATUS_OK || !*resumed) {
        writer->keep |= *resumed; // what stands in the way is for a person to see
        writer->store->close(&writer->state);
        return status;
    }
    writer->resumed = writer->builder.part[INDEX_RECORDS].count;
    for (uint64_t i = 0; i < writer->resumed; i++) {
        int32_t label = index_builder_record(&writer->builder, i).label;
        writer->max_label = label > writer->max_label ? label : writer->max_label;
    }
    return STATUS_OK;
}

static enum status open_store(struct dataset_writer *writer,
                              const struct dataset_writer_config *config, struct error *error)
{
    const struct store_owner owner = {.context = writer, .checkpoint = checkpoint};
    bool found = false, resumed = false;
    enum status status = STATUS_OK;
    if (config->journal != NULL && !config->restart) {
        status = journal_find(&writer->journal, writer->partial, config->store, config->journal,
                              &found, error);
        writer->keep = status == STATUS_EXISTS;
    }
    if (status == STATUS_OK && found) {
        status = resume(writer, config, &owner, &resumed, error);
        writer->journaled = resumed;
    }
    if (status != STATUS_OK || resumed) {
        return status;
    }
    journal_close(&writer->journal);
    status = empty_directory(writer->partial, error);
    if (status == STATUS_OK && config->journal != NULL) {
        writer->journaled = true;
        status =
            journal_begin(&writer->journal, writer->partial, config->store, config->journal, error);
    }
    return status ? status
                  : writer->store->open(&writer->state, writer->partial, config, &owner, error);
}

uint64_t dataset_writer_resumed(const struct dataset_writer *writer)
{
    return writer->resumed;
}

struct dataset_trace dataset_writer_trace(const struct dataset_writer *writer, uint64_t record)
{
    return writer->journal.traces[record];
}

enum status dataset_writer_remark(struct dataset_writer *writer, const struct dataset_trace *trace,
                                  const char *text, struct error *error)
{
    return journal_remark(&writer->journal, trace, text, error);
}

bool dataset_writer_remark_at(const struct dataset_writer *writer, size_t number,
                              struct dataset_trace *trace, const char **text)
{
    if (number >= writer->journal.remark_count) {
        return false;
    }
    *trace = writer->journal.remarks[number].trace;
    *text = writer->journal.remarks[number].text;
    return true;
}

// --- opening -----------------------------------------------------------------------------------

static enum status open_parts(struct dataset_writer *writer, const char *directory,
                              const struct dataset_writer_config *config, struct error *error)
{
    enum status status = dataset_writer_name(writer, directory, error);
    if (status == STATUS_OK) {
        status = check_target(writer, error);
    }
    if (status == STATUS_OK) {
        status = file_make_directories(writer->parent, error);
    }
    if (status == STATUS_OK) {
        status = claim_partial(writer, error);
    }
    if (status == STATUS_OK) {
        const char *text = config->provenance ? config->provenance : "";
        status = index_builder_set_provenance(&writer->builder, text, error);
    }
    if (status == STATUS_OK) {
        status = dataset_packer_open(&writer->packer, config->store, error);
    }
    return status ? status : open_store(writer, config, error);
}

enum status dataset_writer_open(struct dataset_writer **out, const char *directory,
                                const struct dataset_writer_config *config, struct error *error)
{
    struct dataset_writer *writer = calloc(1, sizeof *writer);
    *out = writer;
    if (writer == NULL) {
        return error_set(error, STATUS_NO_MEMORY, directory, NOWHERE, NOWHERE,
                         "no memory to write a dataset");
    }
    writer->lock = -1;
    writer->journal.fd = -1;
    writer->replace = config->replace;
    writer->max_label = DATASET_NO_LABEL;
    writer->store = config->store == DATASET_LMDB ? &store_lmdb : &store_shards;
    writer->builder.store = config->store;
    enum status status = open_parts(writer, directory, config, error);
    if (status != STATUS_OK) {
        dataset_writer_abort(out);
    }
    return status;
}

void dataset_writer_free(struct dataset_writer **out)
{
    struct dataset_writer *writer = *out;
    writer->store->close(&writer->state);
    dataset_packer_close(&writer->packer);
    dataset_packed_free(&writer->packed);
    index_builder_free(&writer->builder);
    journal_close(&writer->journal);
    name_set_free(&writer->names);
    if (writer->lock >= 0) {
        close(writer->lock);
    }
    free(writer);
    *out = NULL;
}

void dataset_writer_abort(struct dataset_writer **out)
{
    struct dataset_writer *writer = *out;
    if (writer == NULL) {
        return;
    }
    writer->store->close(&writer->state);
    // With LMDB the last checkpoint may be of a batch whose commit failed.
    bool keep = writer->keep || (writer->journaled && writer->journal.entries > 1);
    if (writer->lock >= 0 && !keep) { // else the directory is not ours, or worth going on from
        dataset_remove(writer->partial);
    }
    dataset_writer_free(out);
}

// --- add ---------------------------------------------------------------------------------------

enum status dataset_writer_add_packed(struct dataset_writer *writer,
                                      const struct dataset_item *item,
                                      const struct dataset_packed *packed, struct error *error)
{
    uint64_t count = writer->builder.part[INDEX_RECORDS].count;
    if (count >= LIMIT_RECORDS) {
        return error_set(error, STATUS_LIMIT, item->name, NOWHERE, count,
                         "a dataset holds at most %llu records", (unsigned long long)LIMIT_RECORDS);
    }
    bool fresh;
    enum status status = name_set_add(&writer->names, item->name, &fresh, error);
    if (status == STATUS_OK && !fresh) {
        status = error_set(error, STATUS_INVALID, item->name, NOWHERE, count,
                           "a second image of this name; names must be unique");
    }
    struct dataset_record record = packed->record;
    if (status == STATUS_OK) {
        status = writer->store->add(writer->state, item, packed, &writer->builder, &record, error);
    }
    if (status == STATUS_OK && writer->journaled) {
        status = journal_trace(&writer->journal, &item->trace, error);
    }
    if (status == STATUS_OK) {
        status = index_builder_add_record(&writer->builder, item->name, &record, error);
    }
    if (record.label > writer->max_label) {
        writer->max_label = record.label;
    }
    return status;
}

enum status dataset_writer_add(struct dataset_writer *writer, const struct dataset_item *item,
                               struct error *error)
{
    enum status status = dataset_pack(writer->packer, item, &writer->packed, error);
    return status ? status : dataset_writer_add_packed(writer, item, &writer->packed, error);
}

// --- commit ------------------------------------------------------------------------------------

static enum status add_classes(struct dataset_writer *writer, const char *const *names,
                               uint32_t count, struct error *error)
{
    if (count > LIMIT_CLASSES || writer->max_label >= (int32_t)count) {
        return error_set(error, STATUS_INVALID, writer->directory, NOWHERE, NOWHERE,
                         "%u classes are named, the largest label is %d, %llu classes are allowed",
                         count, writer->max_label, (unsigned long long)LIMIT_CLASSES);
    }
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        const char *fault = name_class_fault(names[i], strlen(names[i]));
        status = fault ? error_set(error, STATUS_INVALID, names[i], NOWHERE, NOWHERE,
                                   "the name of class %u %s", i, fault)
                       : index_builder_add_class(&writer->builder, names[i], error);
    }
    return status;
}

enum status dataset_writer_seal(struct dataset_writer *writer, struct error *error)
{
    char path[PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/" INDEX_FILE_NAME, writer->partial);
    enum status status = index_builder_write(&writer->builder, path, error);
    writer->finished = status == STATUS_OK;
    writer->keep |= writer->finished && writer->journaled;
    return status;
}

enum status dataset_writer_finish(struct dataset_writer *writer, const char *const *class_names,
                                  uint32_t class_count, struct error *error)
{
    if (writer->builder.part[INDEX_RECORDS].count == 0) {
        return error_set(error, STATUS_INVALID, writer->directory, NOWHERE, NOWHERE,
                         "no records were added");
    }
    enum status status = add_classes(writer, class_names, class_count, error);
    if (status == STATUS_OK) {
        status = writer->store->finish(writer->state, &writer->builder, error);
    }
    writer->store->close(&writer->state);
    return status ? status : dataset_writer_seal(writer, error);
}

enum status dataset_writer_commit(struct dataset_writer **writer, const char *const *class_names,
                                  uint32_t class_count, struct error *error)
{
    enum status status = dataset_writer_finish(*writer, class_names, class_count, error);
    if (status == STATUS_OK) {
        status = dataset_place(writer, 1, NULL, 0, error);
    }
    return status ? status : dataset_settle(writer, 1, error);
}
