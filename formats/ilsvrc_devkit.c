// The kit is read as sources are, from the archive or the folder, nothing extracted.
#include "formats/ilsvrc_devkit.h"
#include "formats/mat_table.h"
#include "formats/name.h"
#include "formats/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES (16u << 20) // of one of its files
#define IDS_MAX    100000u     // there are 1,860
#define WNID_BYTES 64

static const char truth_name[] = "ILSVRC2012_validation_ground_truth.txt";
static const char meta_name[] = "meta.mat";

struct piece {
    char *bytes; // with a NUL behind; NULL: not met
    size_t len;
};

struct kit {
    const char *path;
    struct piece truth, meta;
    char (*wnids)[WNID_BYTES]; // by ILSVRC2012_ID; "": none has it
};

enum status ilsvrc_devkit_is(const char *path, bool *is, struct error *error)
{
    struct stat about;
    struct error why;
    *is = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
    enum status status = *is ? STATUS_OK : source_tar.recognise(path, is, &why);
    if (status != STATUS_OK && error != NULL) {
        *error = why;
    }
    return status;
}

// --- its files -----------------------------------------------------------------------------------

static enum status take(struct kit *kit, struct piece *piece, const struct source_kind *kind,
                        void *state, const struct source_entry *entry, struct error *error)
{
    if (entry->size > FILE_BYTES || piece->bytes != NULL) {
        return error_set(error, STATUS_LIMIT, kit->path, NOWHERE, NOWHERE,
                         "%.200s is there twice, or longer than %u bytes", entry->name, FILE_BYTES);
    }
    piece->bytes = malloc((size_t)entry->size + 1);
    if (piece->bytes == NULL) {
        return error_errno(error, ENOMEM, kit->path, NOWHERE, "allocate memory for the labels");
    }
    enum status status = kind->read(state, piece->bytes, (size_t)entry->size, &piece->len, error);
    piece->bytes[piece->len] = '\0';
    return status;
}

static enum status find_files(struct kit *kit, const struct source_kind *kind, void *state,
                              struct error *error)
{
    enum status status = STATUS_OK;
    while (status == STATUS_OK && (kit->truth.bytes == NULL || kit->meta.bytes == NULL)) {
        struct source_entry entry = {0};
        status = kind->next(state, &entry, error);
        if (status != STATUS_OK || entry.type != SOURCE_ENTRY_FILE || entry.name == NULL) {
            continue;
        }
        const char *slash = strrchr(entry.name, '/'), *base = slash ? slash + 1 : entry.name;
        if (strcmp(base, truth_name) == 0) {
            status = take(kit, &kit->truth, kind, state, &entry, error);
        } else if (strcmp(base, meta_name) == 0) {
            status = take(kit, &kit->meta, kind, state, &entry, error);
        }
    }
    return status != STATUS_END ? status
                                : error_set(error, STATUS_UNSUPPORTED, kit->path, NOWHERE, NOWHERE,
                                            "no development kit of ILSVRC2012: it has no %s",
                                            kit->truth.bytes == NULL ? truth_name : meta_name);
}

static enum status read_files(struct kit *kit, struct error *error)
{
    struct stat about;
    bool folder = stat(kit->path, &about) == 0 && S_ISDIR(about.st_mode);
    const struct source_kind *kind = folder ? &source_folder : &source_tar;
    void *state = NULL;
    enum status status = kind->open(&state, kit->path, error);
    if (status == STATUS_OK) {
        status = find_files(kit, kind, state, error);
    }
    kind->close(&state);
    return status;
}

// --- what the numbers mean -----------------------------------------------------------------------

static enum status take_synset(void *context, const struct mat_cell *cells, struct error *error)
{
    struct kit *kit = context;
    double id = cells[0].number;
    const char *fault = name_class_fault(cells[1].text, strlen(cells[1].text));
    if (!cells[0].is_number || !(id >= 1 && id < IDS_MAX) || fault != NULL) {
        return error_set(error, STATUS_CORRUPT, kit->path, NOWHERE, NOWHERE,
                         "%s: a synset without a number and a WNID", meta_name);
    }
    snprintf(kit->wnids[(size_t)id], WNID_BYTES, "%s", cells[1].text);
    return STATUS_OK;
}

static enum status read_meta(struct kit *kit, struct error *error)
{
    static const char *const fields[] = {"ILSVRC2012_ID", "WNID"};
    kit->wnids = calloc(IDS_MAX, sizeof *kit->wnids);
    if (kit->wnids == NULL) {
        return error_errno(error, ENOMEM, kit->path, NOWHERE, "allocate memory for the labels");
    }
    return mat_table_read(kit->meta.bytes, kit->meta.len, kit->path, "synsets", fields, 2,
                          take_synset, kit, error);
}

// At least as many as there are.
static size_t count_lines(const struct piece *piece)
{
    size_t lines = 1;
    for (size_t i = 0; i < piece->len; i++) {
        lines += piece->bytes[i] == '\n' || piece->bytes[i] == '\r';
    }
    return lines;
}

static enum status read_truth(struct kit *kit, struct name_list *labels, struct error *error)
{
    char *rest = NULL;
    labels->lines = calloc(count_lines(&kit->truth), sizeof *labels->lines);
    if (labels->lines == NULL) {
        return error_errno(error, ENOMEM, kit->path, NOWHERE, "allocate memory for the labels");
    }
    for (char *line = strtok_r(kit->truth.bytes, "\r\n", &rest); line != NULL;
         line = strtok_r(NULL, "\r\n", &rest)) {
        char *end;
        unsigned long id = strtoul(line, &end, 10);
        const char *wnid = id < IDS_MAX ? kit->wnids[id] : "";
        if (end == line || end[strspn(end, " \t")] != '\0' || wnid[0] == '\0') {
            return error_set(error, STATUS_CORRUPT, kit->path, NOWHERE, labels->count,
                             "%s: '%.40s' is the number of no synset", truth_name, line);
        }
        labels->lines[labels->count] =
            (struct name_line){.name = wnid, .number = labels->count + 1};
        labels->count++;
    }
    return STATUS_OK;
}

enum status ilsvrc_devkit_read(struct name_list *labels, const char *path, struct error *error)
{
    struct kit kit = {.path = path};
    snprintf(labels->path, sizeof labels->path, "%s", path);
    enum status status = read_files(&kit, error);
    if (status == STATUS_OK) {
        status = read_meta(&kit, error);
    }
    labels->text = (uint8_t *)kit.wnids; // the lines' names
    if (status == STATUS_OK) {
        status = read_truth(&kit, labels, error);
    }
    free(kit.truth.bytes);
    free(kit.meta.bytes);
    return status;
}
