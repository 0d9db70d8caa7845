// Tars that hold more than images in folders: WebDataset shards, ImageNet's tars of class tars,
// archives of CIFAR's and STL-10's binaries. Their headers' checksums hold.
#include "tests/support/fuzz_source.h"
#include "tests/support/source_case.h"

#include <stdlib.h>
#include <string.h>

#define CIFAR_RECORD 3073
#define STL_RECORD   27648

static FILE *begin(char **bytes, size_t *len)
{
    FILE *tar = open_memstream(bytes, len);
    FUZZ_CHECK(tar != NULL);
    return tar;
}

static void seed_webdataset(void)
{
    char *bytes;
    size_t len;
    FILE *tar = begin(&bytes, &len);
    source_case_file(tar, "./a/0001.cls", "7");
    source_case_file(tar, "./a/0001.jpg", "\xff\xd8\xff one");
    source_case_file(tar, "./a/0002.png", "\x89PNG two");
    source_case_file(tar, "./a/0002.txt", "about it");
    source_case_file(tar, "./a/0002.json", "{\"label\": 3, \"of\": [\"x\", {}]}");
    source_case_file(tar, "./a/0003.jpeg", "\xff\xd8\xff three");
    source_case_end(tar);
    fuzz_seed(bytes, len, 0);
    free(bytes);
}

static void put_class(FILE *outer, const char *name, const char *image)
{
    char *bytes;
    size_t len;
    FILE *tar = begin(&bytes, &len);
    source_case_file(tar, image, "\xff\xd8\xff picture");
    source_case_end(tar);
    source_case_member(outer, name, '0', bytes, len);
    free(bytes);
}

static void seed_ilsvrc(void)
{
    char *bytes;
    size_t len;
    FILE *tar = begin(&bytes, &len);
    put_class(tar, "n01440764.tar", "n01440764_18.JPEG");
    put_class(tar, "n01443537.tar", "n01443537_2.JPEG");
    source_case_end(tar);
    fuzz_seed(bytes, len, 0);
    free(bytes);
}

static void seed_binaries(const char *images, size_t record, const char *labels, const char *names)
{
    char *bytes;
    size_t len;
    uint8_t *pixels = calloc(1, record);
    FUZZ_CHECK(pixels != NULL);
    FILE *tar = begin(&bytes, &len);
    source_case_member(tar, images, '0', pixels, record);
    if (labels != NULL) {
        source_case_file(tar, labels, "\x03");
    }
    source_case_file(tar, names, "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    source_case_end(tar);
    fuzz_seed(bytes, len, 0);
    free(bytes);
    free(pixels);
}

static void open_archives(void)
{
    seed_webdataset();
    seed_ilsvrc();
    seed_binaries("c/data_batch_1.bin", CIFAR_RECORD, NULL, "c/batches.meta.txt");
    seed_binaries("s/train_X.bin", STL_RECORD, "s/train_y.bin", "s/class_names.txt");
}

static void close_archives(void)
{
}

static size_t repair_headers(uint8_t *bytes, size_t len, uint64_t *random)
{
    if (fuzz_below(random, 16) > 0) {
        fuzz_source_repair_tar(bytes, len);
    }
    return len;
}

static const struct fuzz_target target = {.name = "archives",
                                          .open = open_archives,
                                          .close = close_archives,
                                          .repair = repair_headers,
                                          .run = fuzz_source_run};

FUZZ_MAIN(target)
