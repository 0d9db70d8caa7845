// Several processes each write a dataset of their share; the first then joins them.
#include "tools/convert.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- parts -------------------------------------------------------------------------------------

void convert_part_path(const struct convert_output *output, unsigned rank, unsigned ranks,
                       char *path, size_t size)
{
    snprintf(path, size, "%s.part-%05u-of-%05u", output->path, rank, ranks);
}

static void partial_path(const struct convert_output *output, unsigned rank, unsigned ranks,
                         char path[PART_PATH_BYTES])
{
    convert_part_path(output, rank, ranks, path, PART_PATH_BYTES);
    size_t len = strlen(path);
    snprintf(path + len, PART_PATH_BYTES - len, ".partial");
}

// Of how many processes `name` holds a part, where the output is called `base`; 0 = it does not.
static unsigned part_of(const char *name, const char *base)
{
    size_t len = strlen(base);
    unsigned rank, ranks;
    int end = 0;
    bool ours = strncmp(name, base, len) == 0 &&
                sscanf(name + len, ".part-%5u-of-%5u.partial%n", &rank, &ranks, &end) == 2 &&
                end > 0 && name[len + (size_t)end] == '\0';
    return ours ? ranks : 0;
}

enum status convert_check_parts(const struct convert *convert, const struct convert_output *output,
                                struct error *error)
{
    const char *slash = strrchr(output->path, '/'), *base = slash ? slash + 1 : output->path;
    char parent[sizeof output->path + 1], path[2 * sizeof output->path];
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(base - output->path) : 2,
             slash ? output->path : "./");
    DIR *entries = opendir(parent); // no directory, no parts
    enum status status = STATUS_OK;
    struct dirent *entry;
    while (status == STATUS_OK && entries != NULL && (entry = readdir(entries)) != NULL) {
        unsigned ranks = part_of(entry->d_name, base);
        if (ranks == 0 || ranks == comm_ranks(convert->comm)) {
            continue;
        }
        snprintf(path, sizeof path, "%s%s", parent, entry->d_name);
        if (convert->options.restart) {
            dataset_remove(path);
        } else {
            status = error_set(error, STATUS_EXISTS, path, NOWHERE, NOWHERE,
                               "an unfinished conversion by %u processes; start as many to go on, "
                               "or give --restart to begin anew",
                               ranks);
        }
    }
    if (entries != NULL) {
        closedir(entries);
    }
    return status;
}

void convert_remove_parts(const struct convert *convert, const struct convert_output *output)
{
    unsigned ranks = comm_ranks(convert->comm);
    for (unsigned rank = 0; ranks > 1 && rank < ranks; rank++) {
        char path[PART_PATH_BYTES];
        partial_path(output, rank, ranks, path);
        dataset_remove(path);
    }
}

// --- joining -----------------------------------------------------------------------------------

static void add_totals(struct convert_totals *sum, const struct convert_totals *more)
{
    const uint64_t *from = (const uint64_t *)more;
    uint64_t *to = (uint64_t *)sum;
    for (size_t i = 0; i < sizeof *sum / sizeof(uint64_t); i++) {
        to[i] += from[i];
    }
}

// Gathers what each process did; all[rank] is of one, the output's totals become those of all.
static enum status sum_totals(struct convert *convert, struct convert_output *output,
                              struct convert_totals *all, struct error *error)
{
    enum status status =
        comm_gather(convert->comm, &output->totals, sizeof output->totals, all, error);
    output->totals = (struct convert_totals){0};
    for (unsigned i = 0; i < comm_ranks(convert->comm) && status == STATUS_OK; i++) {
        add_totals(&output->totals, &all[i]);
    }
    return status;
}

// Parts of which all images were bad are none.
static enum status join_output(struct convert *convert, struct convert_output *output,
                               const struct convert_totals *all, struct error *error)
{
    unsigned ranks = comm_ranks(convert->comm), count = 0;
    if (output->totals.images == 0) {
        return convert_check_images(convert, output, error);
    }
    char(*paths)[PART_PATH_BYTES] = calloc(ranks, sizeof *paths);
    if (paths == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    for (unsigned rank = 0; rank < ranks; rank++) {
        if (all[rank].images > 0) {
            partial_path(output, rank, ranks, paths[count++]);
        }
    }
    enum status status =
        dataset_writer_join(output->joined, (const char(*)[PART_PATH_BYTES])paths, count, error);
    free(paths);
    return status;
}

enum status convert_join(struct convert *convert, struct error *error)
{
    unsigned ranks = comm_ranks(convert->comm);
    struct convert_totals *all = calloc(convert->output_count * ranks, sizeof *all);
    enum status status =
        all ? STATUS_OK : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    status = comm_agree(convert->comm, status, NULL, error);
    for (size_t i = 0; all != NULL && i < convert->output_count && status == STATUS_OK; i++) {
        status = sum_totals(convert, &convert->outputs[i], all + i * ranks, error);
    }
    for (size_t i = 0; all != NULL && i < convert->output_count && status == STATUS_OK; i++) {
        if (comm_rank(convert->comm) == 0) {
            status = join_output(convert, &convert->outputs[i], all + i * ranks, error);
        }
    }
    free(all);
    return status;
}
