// A ring of jobs. `filled`, `submitted`, `taken` and `released` only grow; job number n lives in
// slot n modulo the ring's size. Jobs between released and filled are under way, of which those
// below `submitted` the threads know of and those below `taken` have one; `done` marks the ones
// that are finished. Threads are told of several jobs at once: where images are only copied, one
// takes less time than waking a thread.
#include "tools/convert_pool.h"
#include "formats/limits.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define JOBS_PER_THREAD 16 // so many that neither side often waits for the other
#define JOBS_AT_ONCE    8

struct worker {
    struct convert_pool *pool;
    pthread_t thread;
    struct image_decoder *decoder;
    struct image_recoder *recoder;     // if recoding was asked for
    struct image image, smaller, room; // the last two where images are resized
    struct image_planes planes;        // of images that are decoded on the fast road
    struct dataset_packer *packer;
};

struct convert_pool {
    struct convert_job *jobs;
    bool *done; // [job_count], guarded by `lock`
    unsigned job_count;
    struct worker *workers;
    unsigned started, worker_count;
    struct convert_work work;
    uint64_t filled, released;     // the caller's thread alone uses these
    pthread_mutex_t lock;          // guards the fields below and `done`
    pthread_cond_t wake, finished; // "submitted or closing changed", "job `awaited` is done"
    uint64_t submitted, taken;     // `submitted` is the caller's to change
    uint64_t awaited;
    bool closing;
};

// --- one image ---------------------------------------------------------------------------------

static enum status keep_recoded(struct convert_job *job, const uint8_t *payload, size_t len)
{
    if (len > job->recoded_capacity) {
        uint8_t *bytes = malloc(len);
        if (bytes == NULL) {
            return error_errno(&job->error, ENOMEM, NULL, NOWHERE, "allocate memory to recode");
        }
        free(job->recoded);
        job->recoded = bytes;
        job->recoded_capacity = len;
    }
    memcpy(job->recoded, payload, len);
    job->item.bytes = job->recoded;
    job->item.len = len;
    job->item.info.kind = IMAGE_RECODED;
    return STATUS_OK;
}

// A proof of the recoded form decodes the whole image.
static enum status recode(struct worker *worker, struct convert_job *job, bool *decoded)
{
    const uint8_t *payload = NULL;
    size_t len;
    enum status status = image_recode(worker->recoder, job->item.bytes, job->item.len,
                                      &job->outcome, &payload, &len, &job->error);
    *decoded = payload != NULL;
    return status == STATUS_OK && payload != NULL ? keep_recoded(job, payload, len) : status;
}

// A smaller file takes the place of one whose shorter side is longer than wanted.
static enum status resize(struct worker *worker, struct convert_job *job, bool *decoded)
{
    const struct convert_resize *to = &worker->pool->work.resize;
    struct image_info *info = &job->item.info;
    free(job->smaller);
    job->smaller = NULL;
    job->resized = to->side > 0 && info->width > to->side && info->height > to->side;
    if (!job->resized) {
        return STATUS_OK;
    }
    enum status status =
        image_decode(worker->decoder, job->bytes, job->len, NULL, &worker->image, &job->error);
    if (status == STATUS_OK) {
        status = convert_resize_image(&worker->image, (uint32_t)to->side, &worker->smaller,
                                      &worker->room, &job->error);
    }
    if (status == STATUS_OK) {
        status = image_encode_jpeg(&worker->smaller, (int)to->quality, &job->smaller,
                                   &job->smaller_len, &job->error);
    }
    if (status == STATUS_OK) {
        *decoded = true;
        job->item.bytes = job->smaller;
        job->item.len = job->smaller_len;
        *info = (struct image_info){.kind = IMAGE_JPEG,
                                    .width = worker->smaller.width,
                                    .height = worker->smaller.height,
                                    .components = 3};
    }
    return status;
}

// The road that takes plain JPEGs leaves what is not flawless to libjpeg, whose verdict counts
// then.
static enum status verify(struct worker *worker, struct convert_job *job)
{
    const struct image_info *info = &job->item.info;
    const struct image_window whole = {.width = info->width, .height = info->height};
    bool plain = info->kind == IMAGE_JPEG && info->components != 4 && !info->progressive;
    return plain ? image_decode_windows(worker->decoder, job->bytes, job->len, &whole, 1,
                                        &worker->planes, &job->error)
                 : image_decode(worker->decoder, job->bytes, job->len, NULL, &worker->image,
                                &job->error);
}

static enum status check_and_pack(struct worker *worker, struct convert_job *job)
{
    struct error *error = &job->error;
    struct image_info info;
    bool decoded = false;
    job->outcome = RECODE_UNUSUAL;
    enum status status = image_probe(worker->decoder, job->bytes, job->len, &info, error);
    job->item = (struct dataset_item){
        .name = job->name, .bytes = job->bytes, .len = job->len, .label = job->label, .info = info};
    job->original = info;
    if (status == STATUS_OK) {
        status = resize(worker, job, &decoded);
    }
    if (status == STATUS_OK && job->item.info.kind == IMAGE_JPEG && worker->recoder != NULL) {
        status = recode(worker, job, &decoded);
    }
    if (status == STATUS_OK && worker->pool->work.verify && !decoded) {
        status = verify(worker, job);
    }
    return status ? status : dataset_pack(worker->packer, &job->item, &job->packed, error);
}

// Else one thread is done with several images before another is awake.
static bool decodes(const struct convert_pool *pool)
{
    return pool->work.verify || pool->work.recode || pool->work.resize.side > 0;
}

static void *run_jobs(void *argument)
{
    struct worker *worker = argument;
    struct convert_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->closing && pool->taken == pool->submitted) {
            pthread_cond_wait(&pool->wake, &pool->lock);
        }
        if (pool->closing) {
            break;
        }
        uint64_t number = pool->taken++;
        unsigned slot = (unsigned)(number % pool->job_count);
        if (decodes(pool) && pool->taken < pool->submitted) {
            pthread_cond_signal(&pool->wake); // for another thread too
        }
        pthread_mutex_unlock(&pool->lock);
        struct convert_job *job = &pool->jobs[slot];
        if (job->status == STATUS_OK) {
            job->status = check_and_pack(worker, job);
        }
        pthread_mutex_lock(&pool->lock);
        pool->done[slot] = true;
        if (number == pool->awaited) {
            pthread_cond_signal(&pool->finished);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

// --- life --------------------------------------------------------------------------------------

static enum status allocate_jobs(struct convert_pool *pool, unsigned threads, struct error *error)
{
    pool->job_count = threads * JOBS_PER_THREAD;
    pool->jobs = calloc(pool->job_count, sizeof *pool->jobs);
    pool->done = calloc(pool->job_count, sizeof *pool->done);
    pool->workers = calloc(threads, sizeof *pool->workers);
    bool ready = pool->jobs != NULL && pool->done != NULL && pool->workers != NULL;
    for (unsigned i = 0; ready && i < pool->job_count; i++) {
        pool->jobs[i].name = malloc(LIMIT_NAME_BYTES + 1);
        ready = pool->jobs[i].name != NULL;
    }
    return ready ? STATUS_OK
                 : error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for the images");
}

static enum status start_worker(struct convert_pool *pool, struct error *error)
{
    struct worker *worker = &pool->workers[pool->worker_count++];
    worker->pool = pool;
    enum status status = image_decoder_open(&worker->decoder, error);
    if (status == STATUS_OK) {
        status = dataset_packer_open(&worker->packer, pool->work.store, error);
    }
    if (status == STATUS_OK && pool->work.recode) {
        status = image_recoder_open(&worker->recoder, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    int errnum = pthread_create(&worker->thread, NULL, run_jobs, worker);
    if (errnum != 0) {
        return error_set(error, STATUS_THREAD, NULL, NOWHERE, NOWHERE,
                         "cannot start a thread (%s): try fewer --threads", strerror(errnum));
    }
    pool->started++;
    return STATUS_OK;
}

enum status convert_pool_open(struct convert_pool **out, unsigned threads,
                              const struct convert_work *work, struct error *error)
{
    struct convert_pool *pool = calloc(1, sizeof *pool);
    *out = pool;
    if (pool == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory for threads");
    }
    pool->work = *work;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->finished, NULL);
    enum status status = allocate_jobs(pool, threads, error);
    for (unsigned i = 0; i < threads && status == STATUS_OK; i++) {
        status = start_worker(pool, error);
    }
    if (status != STATUS_OK) {
        convert_pool_close(out);
    }
    return status;
}

void convert_pool_close(struct convert_pool **out)
{
    struct convert_pool *pool = *out;
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    for (unsigned i = 0; i < pool->worker_count; i++) {
        image_decoder_close(&pool->workers[i].decoder);
        image_recoder_close(&pool->workers[i].recoder);
        image_free(&pool->workers[i].image);
        image_free(&pool->workers[i].smaller);
        image_free(&pool->workers[i].room);
        image_planes_free(&pool->workers[i].planes);
        dataset_packer_close(&pool->workers[i].packer);
    }
    for (unsigned i = 0; pool->jobs != NULL && i < pool->job_count; i++) {
        free(pool->jobs[i].name);
        free(pool->jobs[i].bytes);
        free(pool->jobs[i].recoded);
        free(pool->jobs[i].smaller);
        dataset_packed_free(&pool->jobs[i].packed);
    }
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool->done);
    free(pool->jobs);
    free(pool);
    *out = NULL;
}

// --- the ring ----------------------------------------------------------------------------------

struct convert_job *convert_pool_free_job(struct convert_pool *pool)
{
    if (pool->filled - pool->released == pool->job_count) {
        return NULL;
    }
    struct convert_job *job = &pool->jobs[pool->filled % pool->job_count];
    job->status = STATUS_OK;
    return job;
}

// With the lock held.
static void tell_threads(struct convert_pool *pool)
{
    for (; pool->submitted < pool->filled; pool->submitted++) {
        pool->done[pool->submitted % pool->job_count] = false;
    }
    pthread_cond_signal(&pool->wake);
}

void convert_pool_submit(struct convert_pool *pool)
{
    pool->filled++;
    if (pool->filled - pool->submitted == JOBS_AT_ONCE) {
        pthread_mutex_lock(&pool->lock);
        tell_threads(pool);
        pthread_mutex_unlock(&pool->lock);
    }
}

struct convert_job *convert_pool_oldest(struct convert_pool *pool)
{
    if (pool->filled == pool->released) {
        return NULL;
    }
    unsigned slot = (unsigned)(pool->released % pool->job_count);
    pthread_mutex_lock(&pool->lock);
    if (pool->submitted <= pool->released || !pool->done[slot]) {
        tell_threads(pool);
    }
    pool->awaited = pool->released;
    while (!pool->done[slot]) {
        pthread_cond_wait(&pool->finished, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return &pool->jobs[slot];
}

void convert_pool_release(struct convert_pool *pool)
{
    pool->released++;
}
