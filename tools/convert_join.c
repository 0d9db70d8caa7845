// Several processes each write a dataset of their share; the first then joins them.
#include "tools/convert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_totals(struct convert_totals *sum, const struct convert_totals *more)
{
    const uint64_t *from = (const uint64_t *)more;
    uint64_t *to = (uint64_t *)sum;
    for (size_t i = 0; i < sizeof *sum / sizeof(uint64_t); i++) {
        to[i] += from[i];
    }
}

static enum status sum_totals(struct convert *convert, struct convert_output *output,
                              struct error *error)
{
    unsigned ranks = comm_ranks(convert->comm);
    struct convert_totals *all = calloc(ranks, sizeof *all);
    if (all == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory");
    }
    enum status status =
        comm_gather(convert->comm, &output->totals, sizeof output->totals, all, error);
    output->totals = (struct convert_totals){0};
    for (unsigned i = 0; i < ranks && status == STATUS_OK; i++) {
        add_totals(&output->totals, &all[i]);
    }
    free(all);
    return status;
}

static enum status join_output(struct convert *convert, struct convert_output *output,
                               uint64_t images, struct error *error)
{
    unsigned ranks = comm_ranks(convert->comm), count = 0;
    char(*paths)[560] = calloc(ranks, sizeof *paths);
    char *provenance = convert_provenance(convert);
    enum status status = paths && provenance ? STATUS_OK
                                             : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE,
                                                         NOWHERE, "no memory");
    for (unsigned rank = 0; rank < ranks && status == STATUS_OK; rank++) {
        uint64_t first = images / ranks * rank + images % ranks * rank / ranks;
        uint64_t end = images / ranks * (rank + 1) + images % ranks * (rank + 1) / ranks;
        if (end > first) {
            convert_part_path(output, rank, paths[count++], sizeof *paths);
        }
    }
    if (status == STATUS_OK) {
        const struct dataset_writer_config config = {
            .store = DATASET_SHARDS, .provenance = provenance, .replace = convert->options.force};
        status = dataset_join(output->path, (const char(*)[560])paths, count, &config, error);
    }
    free(provenance);
    free(paths);
    return status;
}

enum status convert_join(struct convert *convert, struct error *error)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        status = sum_totals(convert, &convert->outputs[i], error);
    }
    for (size_t i = 0; i < convert->output_count && status == STATUS_OK; i++) {
        if (comm_rank(convert->comm) == 0) {
            status = join_output(convert, &convert->outputs[i],
                                 select_split_images(convert->select, i), error);
        }
    }
    return comm_agree(convert->comm, status, NULL, error);
}
