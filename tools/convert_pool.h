// The parallel part of `byol convert`: threads check and pack images while one thread reads the
// source and another part of it writes, both in the source's order. What is written therefore does
// not depend on the number of threads.
#ifndef TOOLS_CONVERT_POOL_H
#define TOOLS_CONVERT_POOL_H

#include "formats/dataset.h"
#include "formats/image_recode.h"
#include "tools/convert_resize.h"

// One image on its way. The caller fills name, place, bytes, len, label, position and output; the
// pool the rest.
struct convert_job {
    char *name;      // the record's; capacity LIMIT_NAME_BYTES + 1
    char place[512]; // where it came from, for messages
    uint8_t *bytes;
    size_t len, capacity;
    int32_t label;
    uint64_t position; // of the sources' images
    uint8_t output;    // where it goes

    enum status status; // of the checks; set it to a failure beforehand to skip them
    struct error error;
    struct dataset_item item;
    struct dataset_packed packed;
    struct image_info original; // of `bytes`
    bool resized;
    uint8_t *smaller; // the file that stands for `bytes` then; malloc'ed
    size_t smaller_len;
    enum recode_outcome outcome; // of a JPEG, where recoding was asked for
    uint8_t *recoded;            // what `item` stands for then, if it succeeded
    size_t recoded_capacity;
};

struct convert_work {
    enum dataset_store store;
    bool verify; // decode every image, not only its header
    struct convert_resize resize;
    bool recode; // store JPEGs in the faster coding where that is proven to give the same
};

struct convert_pool;
enum status convert_pool_open(struct convert_pool **out, unsigned threads,
                              const struct convert_work *work, struct error *error);
void convert_pool_close(struct convert_pool **pool); // waits for the threads; accepts a NULL inside

// A free job to fill, or NULL when all are under way: then finish the oldest first.
struct convert_job *convert_pool_free_job(struct convert_pool *pool);
// Hands the job of the last convert_pool_free_job to the threads.
void convert_pool_submit(struct convert_pool *pool);
// Waits for the oldest job and returns it; NULL when none is under way. It stays under way until
// convert_pool_release.
struct convert_job *convert_pool_oldest(struct convert_pool *pool);
void convert_pool_release(struct convert_pool *pool);

#endif
