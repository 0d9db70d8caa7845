// What a dataset says of its making, and what a conversion must have in common with a killed one to
// go on from it.
#include "tools/convert.h"

#include "formats/name.h"
#include "tools/version.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void print_base(FILE *stream, const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    const char *slash = memrchr(path, '/', end > 0 ? end - 1 : 0);
    const char *base = slash ? slash + 1 : path;
    fprintf(stream, "source %.*s\n", (int)(path + end - base), base);
}

static void print_options(FILE *stream, const struct convert *convert)
{
    const struct convert_options *options = &convert->options;
    fprintf(stream, "byol convert, images %s, bad images %s%s\n",
            options->no_verify ? "probed" : "decoded", options->skip_bad ? "skipped" : "refused",
            options->recode ? ", JPEGs recoded" : "");
    if (options->resize.side > 0) {
        fprintf(stream,
                DATASET_NOT_EXACT "larger images were resized to a short side of %" PRId64
                                  " pixels and are JPEGs of quality %" PRId64 "\n",
                options->resize.side, options->resize.quality);
    }
    if (options->select.split != NULL) {
        fprintf(stream, "split %s, seed %" PRId64 "\n", options->select.split,
                options->select.seed);
    }
    if (options->select.limit > 0) {
        fprintf(stream, "limit %" PRId64 "\n", options->select.limit);
    }
}

// Base names only, so that the dataset does not depend on where its sources lay; of many, the first
// and the last.
char *convert_provenance(const struct convert *convert)
{
    enum { SHOWN = 64 };
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    if (stream == NULL) {
        return NULL;
    }
    print_options(stream, convert);
    size_t count = convert->sources.count;
    for (size_t i = 0; i < count; i++) {
        if (count > SHOWN && i == SHOWN - 1) {
            fprintf(stream, "%zu more sources, the last of which is\n", count - SHOWN + 1);
            i = count - 1;
        }
        print_base(stream, convert->sources.item[i]);
    }
    if (fclose(stream) != 0) {
        free(text);
        return NULL;
    }
    if (name_text_fault(text, len) != NULL) { // a source's name is not UTF-8
        text[strcspn(text, "\n") + 1] = '\0';
    }
    return text;
}

char *convert_identity(const struct convert *convert, size_t output, uint64_t first, uint64_t end)
{
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    if (stream == NULL) {
        return NULL;
    }
    print_options(stream, convert);
    uint64_t hash = convert->fingerprint;
    for (size_t i = 0; i < convert->sources.count; i++) {
        struct stat about = {0};
        if (stat(convert->sources.item[i], &about) == 0 && S_ISREG(about.st_mode)) {
            hash = (hash ^ (uint64_t)about.st_size) * UINT64_C(0x9e3779b97f4a7c15);
            hash = (hash ^ (uint64_t)about.st_mtim.tv_sec) * UINT64_C(0x9e3779b97f4a7c15);
            hash = (hash ^ (uint64_t)about.st_mtim.tv_nsec) * UINT64_C(0x9e3779b97f4a7c15);
        }
        for (const char *at = convert->sources.item[i]; *at != '\0'; at++) {
            hash = (hash ^ (uint8_t)*at) * UINT64_C(0x100000001b3);
        }
        hash ^= hash >> 32;
    }
    const char *name = select_split_name(convert->select, output);
    fprintf(stream,
            "version " BYOL_VERSION ", sources %016" PRIx64 ", choice %016" PRIx64
            ", part %s, images %" PRIu64 " to %" PRIu64 ", shards of %" PRId64
            " MiB, %u processes\n",
            hash, select_fingerprint(convert->select), name ? name : "", first, end,
            convert->options.shard_mib, comm_ranks(convert->comm));
    if (fclose(stream) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
