// LMDBs of others: page trees of one and two levels, values on leaves and on pages of their own.
#include "formats/file.h"
#include "tests/support/fuzz_source.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096u

static const char datum[] = "\x08\x03\x10\x01\x18\x02\x22\x06\x03\x06\x02\x05\x01\x04\x28\x07";

static void put(MDB_txn *txn, MDB_dbi dbi, unsigned number, size_t len)
{
    char key[32], value[6000] = "\xff\xd8\xff";
    snprintf(key, sizeof key, number % 8 == 0 ? "cat/%04u.jpg" : "%08u", number);
    MDB_val name = {.mv_size = strlen(key), .mv_data = key};
    MDB_val data = {.mv_size = len, .mv_data = value};
    if (number % 3 == 0) {
        data = (MDB_val){.mv_size = sizeof datum - 1, .mv_data = (void *)datum};
    }
    FUZZ_CHECK(mdb_put(txn, dbi, &name, &data, 0) == 0);
}

// A file of `count` entries; every tenth is too long for a leaf.
static void seed(const char *path, unsigned count, size_t len)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    uint8_t *bytes;
    size_t size;
    unlink(path);
    FUZZ_CHECK(mdb_env_create(&env) == 0 &&
               mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOSYNC | MDB_NOLOCK, 0600) == 0);
    FUZZ_CHECK(mdb_txn_begin(env, NULL, 0, &txn) == 0 && mdb_dbi_open(txn, NULL, 0, &dbi) == 0);
    for (unsigned i = 1; i <= count; i++) {
        put(txn, dbi, i, i % 10 == 0 ? 5000 : len);
    }
    FUZZ_CHECK(mdb_txn_commit(txn) == 0);
    mdb_env_close(env);
    FUZZ_CHECK(file_read_all(path, FUZZ_INPUT_BYTES, &bytes, &size, NULL) == STATUS_OK);
    fuzz_seed(bytes, size, 2 * (size_t)PAGE);
    free(bytes);
    unlink(path);
}

static void open_walk(void)
{
    char path[] = "/tmp/fuzz-lmdb-XXXXXX";
    int fd = mkstemp(path);
    FUZZ_CHECK(fd >= 0);
    close(fd);
    seed(path, 3, 40);
    seed(path, 12, 40);
    seed(path, 36, 700);
}

static void close_walk(void)
{
}

// Pages carry their numbers.
static size_t repair_walk(uint8_t *bytes, size_t len, uint64_t *random)
{
    for (size_t page = 0; page < len / PAGE; page++) {
        if (fuzz_below(random, 16) > 0) {
            memset(bytes + page * PAGE, 0, 8);
            bytes[page * PAGE] = (uint8_t)page;
        }
    }
    return len;
}

static const struct fuzz_target target = {.name = "lmdb_walk",
                                          .open = open_walk,
                                          .close = close_walk,
                                          .repair = repair_walk,
                                          .run = fuzz_source_run};

FUZZ_MAIN(target)
