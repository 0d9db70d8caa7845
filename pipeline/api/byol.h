/* byol's loader for other programs: datasets, recipes of views, batches of them. C (of 1989 too,
 * where it has stdint.h) and C++.
 *
 *     cc program.c $(pkg-config --cflags --libs byol)
 *
 *     struct byol_error error;
 *     struct byol_dataset *dataset;
 *     struct byol_loader *loader;
 *     struct byol_loader_options options;
 *     const struct byol_batch *batch;
 *     byol_loader_options_init(&options, sizeof options);
 *     options.recipe = "byol";
 *     options.batch = 256;
 *     if (byol_dataset_open(&dataset, "photos.byol", &error) == BYOL_OK &&
 *         byol_loader_open(&loader, dataset, &options, &error) == BYOL_OK) {
 *         while (byol_loader_next(loader, &batch, &error) == BYOL_OK) {
 *             train(batch->view[0], batch->view[1], batch->count);
 *             byol_batch_release(loader, batch);
 *         }
 *     }
 *
 * A batch depends on (dataset, recipe, layout, seed, batch, ranks, position, policy), never on
 * threads or timing: the same numbers as `byol bench loader --hash` has, bit for bit.
 *
 * Errors. What can fail returns a byol_status and fills *error, which may be NULL: file, byte,
 * record, one sentence. Nothing is printed, nothing exits.
 *
 * Stability. The shared library's soname has the number BYOL_ABI. Within one number functions are
 * only added, and structs only grow at their end: those that the caller makes come with their size.
 *
 * Threads. A dataset may be used by any number of threads. A loader has one consumer: one thread at
 * a time calls next, seek, position and close. byol_batch_release, byol_loader_statistics and
 * byol_loader_skips may be called from any thread while the loader is open. Loaders are
 * independent.
 *
 * fork(2). A loader's threads do not exist in a child process: there, a loader of the parent must
 * be left alone, even its close. Open another one. Datasets may be used on both sides. */
#ifndef BYOL_H
#define BYOL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BYOL_VERSION_MAJOR 0
#define BYOL_VERSION_MINOR 1
#define BYOL_VERSION_PATCH 0
#define BYOL_VERSION       "0.1.0"
#define BYOL_ABI           0

#if defined(__GNUC__)
#define BYOL_API __attribute__((visibility("default")))
#else
#define BYOL_API
#endif

/* The library's own version, to be compared with BYOL_VERSION of the header. */
BYOL_API const char *byol_version(void);

/* --- errors ------------------------------------------------------------------------------------ */

enum byol_status {
    BYOL_OK = 0,
    BYOL_IO = 10,            /* a read failed */
    BYOL_NOT_FOUND = 11,     /* no such file, dataset, record or recipe */
    BYOL_EXISTS = 12,        /* refuses to overwrite */
    BYOL_NO_SPACE = 13,      /* a disk is full */
    BYOL_DENIED = 14,        /* permission */
    BYOL_CORRUPT = 20,       /* checksum mismatch, or bytes that break the format's rules */
    BYOL_TRUNCATED = 21,     /* ends before its own length says */
    BYOL_UNSUPPORTED = 22,   /* well-formed, but nothing that is handled */
    BYOL_LIMIT = 23,         /* above a limit on what is accepted */
    BYOL_VERSION_OTHER = 24, /* written by, or compiled for, another version */
    BYOL_INVALID = 30,       /* an argument out of range, or a call out of order */
    BYOL_CONFIG = 31,        /* a setting that does not exist or does not fit */
    BYOL_NO_MEMORY = 40,
    BYOL_THREAD = 43, /* a thread could not be started */
    BYOL_END = 50     /* no failure: the last epoch is over */
};

#define BYOL_NOWHERE UINT64_MAX /* "does not apply", for offset and record */

struct byol_error {
    int32_t status;   /* enum byol_status; others may be added */
    uint32_t unused;  /* 0 */
    uint64_t offset;  /* byte in the file, or BYOL_NOWHERE */
    uint64_t record;  /* of the dataset, or BYOL_NOWHERE */
    char path[512];   /* the file, or "" */
    char reason[512]; /* one sentence */
};

/* "PATH: byte OFFSET, record RECORD: REASON", without what does not apply; cut to `capacity`,
 * always terminated. Returns `text`. */
BYOL_API const char *byol_error_text(const struct byol_error *error, char *text, size_t capacity);
/* Such as "corrupt". Never NULL. */
BYOL_API const char *byol_status_name(int status);

/* --- datasets ---------------------------------------------------------------------------------- */

#define BYOL_NO_LABEL (-1)

/* What `byol convert` made. Strings belong to the dataset. */
struct byol_dataset;
BYOL_API int byol_dataset_open(struct byol_dataset **out, const char *directory,
                               struct byol_error *error);
/* Loaders keep the dataset for themselves: it may be closed before them. Sets *dataset to NULL;
 * accepts NULL there. */
BYOL_API void byol_dataset_close(struct byol_dataset **dataset);

BYOL_API uint64_t byol_dataset_count(const struct byol_dataset *dataset);
/* Changes when anything in the dataset does. */
BYOL_API uint64_t byol_dataset_id(const struct byol_dataset *dataset);
BYOL_API uint32_t byol_dataset_class_count(const struct byol_dataset *dataset);
/* NULL, and BYOL_NO_LABEL, for numbers that there are not. */
BYOL_API const char *byol_dataset_class_name(const struct byol_dataset *dataset, uint32_t label);
BYOL_API const char *byol_dataset_name(const struct byol_dataset *dataset, uint64_t record);
BYOL_API int32_t byol_dataset_label(const struct byol_dataset *dataset, uint64_t record);
/* All labels: `out` has byol_dataset_count values. */
BYOL_API void byol_dataset_labels(const struct byol_dataset *dataset, int32_t *out);
/* Width and height in pixels, as the dataset's index has them. */
BYOL_API int byol_dataset_image_size(const struct byol_dataset *dataset, uint64_t record,
                                     uint32_t *width, uint32_t *height, struct byol_error *error);
/* The image file of a record, JPEG or PNG, verified; a recoded JPEG is made the file again that it
 * was. *bytes is ended with byol_free. */
BYOL_API int byol_dataset_read(const struct byol_dataset *dataset, uint64_t record, uint8_t **bytes,
                               size_t *length, struct byol_error *error);
BYOL_API void byol_free(void *memory); /* accepts NULL */

/* --- recipes ----------------------------------------------------------------------------------- */

/* Names of the built-in recipes, from 0; NULL behind the last. */
BYOL_API const char *byol_recipe_name(size_t index);
/* A recipe, all its keys resolved and explained, as YAML. `recipe` and `settings` as in the options
 * of a loader. *text is ended with byol_free. */
BYOL_API int byol_recipe_describe(const char *recipe, const char *settings, char **text,
                                  struct byol_error *error);

/* --- loaders ----------------------------------------------------------------------------------- */

enum byol_layout {
    BYOL_CHW, /* [count][3][size][size] */
    BYOL_HWC  /* [count][size][size][3] */
};
enum byol_pixels {
    BYOL_FLOAT32, /* views as the recipe says: (x - mean) / deviation of x in [0, 1] */
    BYOL_UINT8 /* crop and resize alone, 8 bits, [count][size][size][3]; what remains to be done is
                  in byol_batch.rest. Layout, mean and deviation are not read */
};
enum byol_policy {
    BYOL_FATAL, /* a bad record ends the stream with an error that names it */
    BYOL_SKIP   /* the next good record of the epoch's order stands in for it; counted and listed */
};
enum byol_io { BYOL_IO_AUTO, BYOL_IO_URING, BYOL_IO_PREAD };

/* Where a batch stands in the stream. Saved and given as `start`, it continues the stream with the
 * same bytes. */
struct byol_position {
    uint32_t epoch;
    uint32_t unused; /* 0 */
    uint64_t batch;  /* within the epoch */
};

struct byol_loader_options {
    size_t size; /* of this struct, set by byol_loader_options_init */
    /* The views: a built-in recipe's name, or the path of a YAML file with a `views:` mapping, also
     * that of `byol pretrain`, whose keys of training are passed over; "byol". `settings` changes
     * it: YAML such as "size: 96\nview1.blur: 0.5"; NULL. Both are copied. */
    const char *recipe, *settings;
    uint64_t seed;     /* of order and views; 0 */
    uint32_t batch;    /* records, 1 to 65536; 64 */
    uint32_t epochs;   /* the stream ends after so many, counted from epoch 0; 0: never; 0 */
    uint32_t threads;  /* that decode and render, at most two a core; 0: one a core; 0 */
    uint32_t slots;    /* batch buffers, 2 to 1024: as many batches may be held at once; 3 */
    int32_t shuffle;   /* 0: in the dataset's order; 1 */
    int32_t keep_last; /* 1: an epoch's last batch may be short; 0: the remainder is left out; 0 */
    int32_t layout;    /* enum byol_layout; BYOL_CHW */
    int32_t pixels;    /* enum byol_pixels; BYOL_FLOAT32 */
    float mean[3], deviation[3]; /* 0 and 1 */
    int32_t policy;              /* enum byol_policy; BYOL_FATAL */
    int32_t io;                  /* enum byol_io; BYOL_IO_AUTO */
    uint64_t
        max_skips;  /* bad records that BYOL_SKIP puts up with; 0: the larger of 16 and 0.1 %; 0 */
    uint64_t cache; /* bytes at most for small records that stay in memory; 96 MiB */
    uint32_t depth; /* reads in flight at most, 1 to 1024; 64 */
    int32_t direct; /* 1: reads past the page cache where the file system lets us; 0 */
    uint32_t rank, ranks;       /* this process's contiguous share of every batch; 0 of 1 */
    struct byol_position start; /* 0, 0 */
};
/* Fills in the defaults, which stand last in each comment. `size` is sizeof *options. */
BYOL_API void byol_loader_options_init(struct byol_loader_options *options, size_t size);

/* What remains to be done to a view of BYOL_UINT8, in this order: flip; the four colour operations
 * in `order` (0 brightness, 1 contrast, 2 saturation, 3 hue) when `jitter`; grayscale; blur;
 * solarize. */
struct byol_rest {
    uint8_t flip, jitter, grayscale, blur, solarize; /* 0 or 1 */
    uint8_t order[4];
    uint8_t unused[3];
    uint32_t taps; /* of the blur's kernel */
    float brightness, contrast, saturation, hue;
    float sigma, threshold;
    uint32_t unused_too[6];
};

/* Made by the library, read by the caller, valid until its release. The arrays begin at multiples
 * of 64 bytes. They may be written to: the next batch in the same buffer fills all of it. */
struct byol_batch {
    struct byol_position position; /* of this batch */
    uint32_t count;                /* records in it; less than options.batch only with keep_last */
    uint32_t size;                 /* pixels per side */
    uint32_t views;                /* 1 or 2: how many of the following are there, the rest NULL */
    uint32_t unused;
    float *view[2];                  /* BYOL_FLOAT32; NULL else */
    uint8_t *bytes[2];               /* BYOL_UINT8; NULL else */
    const struct byol_rest *rest[2]; /* [count], with `bytes` */
    const int32_t *labels;           /* [count], BYOL_NO_LABEL where there is none */
    const uint64_t *records;         /* [count], numbers of the dataset's records */
};

struct byol_loader;
/* Allocates everything it will ever use, starts the threads, prefetches. */
BYOL_API int byol_loader_open(struct byol_loader **out, struct byol_dataset *dataset,
                              const struct byol_loader_options *options, struct byol_error *error);
/* Blocks for the next batch. No pixel is copied: the batch is the buffer that the views were
 * rendered into. BYOL_END after the last epoch; BYOL_INVALID at once, instead of waiting for ever,
 * while as many batches are held as there are buffers: release one, then go on. Any other failure
 * is final and repeats. */
BYOL_API int byol_loader_next(struct byol_loader *loader, const struct byol_batch **batch,
                              struct byol_error *error);
/* Gives the buffer back, in any order, from any thread. */
BYOL_API void byol_batch_release(struct byol_loader *loader, const struct byol_batch *batch);
/* Of the next batch. Prefetching does not move it. */
BYOL_API struct byol_position byol_loader_position(const struct byol_loader *loader);
/* Goes on there; also after an end or an error. While a batch is held, or where there is no such
 * position, BYOL_INVALID, and nothing changes. Counters start anew. */
BYOL_API int byol_loader_seek(struct byol_loader *loader, struct byol_position position,
                              struct byol_error *error);
/* Stops the threads and frees; batches that are held become invalid. Sets *loader to NULL; accepts
 * NULL there. */
BYOL_API void byol_loader_close(struct byol_loader **loader);

BYOL_API uint64_t byol_loader_batches_per_epoch(const struct byol_loader *loader);

/* Seconds summed over threads, and counts, since the loader opened. */
struct byol_statistics {
    double read_wait; /* threads waiting for bytes */
    double unpack, decode, augment;
    double slot_wait;     /* threads waiting for a free buffer: the consumer is the bottleneck */
    double consumer_wait; /* next waiting for a batch: the loader is the bottleneck */
    uint64_t batches, records;
    uint64_t skips; /* bad records so far */
    uint64_t bytes; /* of image files decoded */
    uint64_t reads, read_bytes;
    uint64_t kept;    /* records that came from memory */
    uint64_t memory;  /* bytes planned at open, all of it */
    uint32_t threads; /* what became of the option */
    uint32_t held;    /* batches that are out */
};
/* `size` is sizeof *out. */
BYOL_API void byol_loader_statistics(const struct byol_loader *loader, struct byol_statistics *out,
                                     size_t size);
/* The bad records so far, in the order found: at most `capacity`; returns how many there are. */
BYOL_API size_t byol_loader_skips(const struct byol_loader *loader, struct byol_error *out,
                                  size_t capacity);

#ifdef __cplusplus
}
#endif
#endif
