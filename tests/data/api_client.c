/* A program of somebody else's: one epoch of a dataset, label by label. */
#include <byol.h>

#include <stdio.h>

static int report(const struct byol_error *error)
{
    char text[1100];
    fprintf(stderr, "%s\n", byol_error_text(error, text, sizeof text));
    return 1;
}

int main(int argc, char **argv)
{
    struct byol_error error;
    struct byol_dataset *dataset;
    struct byol_loader *loader;
    struct byol_loader_options options;
    const struct byol_batch *batch;
    unsigned long long records = 0;
    int status;
    byol_loader_options_init(&options, sizeof options);
    options.recipe = "small";
    options.batch = 4;
    options.epochs = 1;
    options.keep_last = 1;
    if (argc != 2 || byol_dataset_open(&dataset, argv[1], &error) != BYOL_OK) {
        return argc != 2 ? 2 : report(&error);
    }
    if (byol_loader_open(&loader, dataset, &options, &error) != BYOL_OK) {
        return report(&error);
    }
    while ((status = byol_loader_next(loader, &batch, &error)) == BYOL_OK) {
        records += batch->count;
        byol_batch_release(loader, batch);
    }
    if (status != BYOL_END) {
        return report(&error);
    }
    status = records == byol_dataset_count(dataset) ? 0 : 1;
    byol_loader_close(&loader);
    byol_dataset_close(&dataset);
    return status;
}
