// Datasets in zstd shards: damaged frames, contents and tars, and indexes that lie about them.
#include "tests/support/fuzz_store.h"

static void open_store(void)
{
    fuzz_store_open(DATASET_SHARDS);
}

static const struct fuzz_target target = {.name = "shards",
                                          .open = open_store,
                                          .close = fuzz_store_close,
                                          .repair = fuzz_store_repair,
                                          .run = fuzz_store_run};

FUZZ_MAIN(target)
