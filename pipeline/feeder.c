// The one thread that decides. It walks the stream position by position, names the record and the
// place in the ring for each, and keeps reads ahead of the workers, who take what arrived. Nothing
// that a worker does changes what is decided here, except that a bad record's position comes back
// and gets the next record of the order.
//
// Positions are decided some at a time, so that records which lie close together in a file are
// brought by one read.
#include "pipeline/stream.h"

// Two records with so much between them are still read at once. Measured: another read costs what
// reading 7 KiB more does from the page cache (1 µs), and 12 KiB more from the device (15 µs).
#define FEEDER_GAP 8192u
// No read is longer, unless one record is: the first record of a long one waits for the last.
#define FEEDER_READ_BYTES (1u << 20)
// Windows in a row that found all reads arrived before fewer are kept ahead.
#define FEEDER_CALM 32u

// --- batches -------------------------------------------------------------------------------------

// Where this rank's part of a batch of `total` records begins; `rank` may be `ranks`.
static uint64_t share_begin(uint64_t total, uint32_t rank, uint32_t ranks)
{
    return total / ranks * rank + total % ranks * rank / ranks;
}

// Begins the next batch in a free slot. False when the stream is over or no slot is free.
static bool begin_batch(struct loader *loader)
{
    const struct loader_config *config = &loader->config;
    if (stream_over(loader, loader->feeding)) {
        return false;
    }
    struct slot *slot = ring_free_slot(&loader->ring);
    if (!slot) {
        return false;
    }
    uint64_t whole = (uint64_t)config->batch * config->ranks;
    uint64_t first = loader->feeding.batch * whole;
    uint64_t total = loader->records - first < whole ? loader->records - first : whole;
    uint64_t begin = share_begin(total, config->rank, config->ranks);
    uint64_t end = share_begin(total, config->rank + 1, config->ranks);
    uint64_t part = config->pieces > 1 ? begin / config->pieces : begin; // of the first piece
    order_init(&slot->order, loader->records, config->seed, loader->feeding.epoch, config->shuffle);
    slot->first = first + part;
    ring_begin(slot, loader->feeding, loader->begun++, (uint32_t)(end - begin));
    stream_advance(loader, &loader->feeding);
    if (slot->state == SLOT_READY) {
        pthread_cond_signal(&loader->batch_ready); // a rank's part of a short batch can be empty
    } else {
        loader->filling = slot;
    }
    return true;
}

// --- what must be read ---------------------------------------------------------------------------

static struct fetch *take_fetch(struct loader *loader)
{
    struct fetch *fetch = loader->free_fetches;
    loader->free_fetches = fetch->next;
    loader->free_count--;
    *fetch = (struct fetch){0};
    return fetch;
}

static void give_fetch(struct loader *loader, struct fetch *fetch)
{
    fetch->next = loader->free_fetches;
    loader->free_fetches = fetch;
    loader->free_count++;
}

// Whether a read of `len` bytes still fits into the window; the first always does.
static bool has_room(struct loader *loader, uint64_t len)
{
    struct window *window = &loader->window;
    uint64_t need = len + FEEDER_GAP + 2 * ARENA_ALIGNMENT;
    if (window->bytes > 0 && window->bytes + need > loader->arena.size / 4) {
        return false;
    }
    window->bytes += need;
    return true;
}

// Its neighbours are looked for when the window is complete.
static bool want(struct loader *loader, struct place *place)
{
    struct window *window = &loader->window;
    struct dataset_record record = dataset_record(loader->dataset, place->record);
    if (!has_room(loader, record.stored_length)) {
        return false;
    }
    window->wants[window->want_count] = (struct want){
        .offset = record.offset, .file = record.file, .length = record.stored_length, place};
    window->spares[window->want_count++] = take_fetch(loader);
    place->run->waiting++;
    return true;
}

static bool begin_block(struct loader *loader, struct cache_block *block)
{
    struct window *window = &loader->window;
    if (!has_room(loader, block->length)) {
        return false;
    }
    struct fetch *fetch = take_fetch(loader);
    fetch->request =
        (struct read_request){.file = block->file, .offset = block->offset, .len = block->length};
    fetch->block = block;
    fetch->users = 1;
    block->fetch = fetch;
    block->state = CACHE_LOADING;
    window->fetches[window->fetch_count++] = fetch;
    return true;
}

// Finds out where the place's record will come from; false when the window is full.
static bool decide(struct loader *loader, struct place *place)
{
    struct cache_block *block = place->alone ? NULL : cache_block_of(&loader->cache, place->record);
    place->fetch = NULL;
    if (!block || block->state == CACHE_FAILED) {
        return want(loader, place);
    }
    if (block->state == CACHE_ABSENT && !begin_block(loader, block)) {
        return false;
    }
    if (block->state == CACHE_LOADING) {
        place->next = block->fetch->places;
        block->fetch->places = place;
        place->run->waiting++;
    }
    return true;
}

// --- positions -----------------------------------------------------------------------------------

static uint64_t record_at(const struct loader *loader, const struct slot *slot, uint32_t index,
                          uint64_t attempt)
{
    const struct loader_config *config = &loader->config;
    uint64_t position = slot->first + index;
    if (config->pieces > 1) { // between this rank's parts of two pieces lie those of the others
        uint32_t part = config->batch / config->pieces;
        position += (uint64_t)(index / part) * (config->ranks - 1) * part;
    }
    return order_at(&slot->order, (position + attempt) % loader->records);
}

// Positions that came back: each is a run of its own. How many runs became ready.
static uint32_t decide_again(struct loader *loader, uint32_t limit)
{
    uint32_t became_ready = 0;
    struct place *place;
    while (limit-- > 0 && (place = loader->again)) {
        struct place *next = place->next;
        struct run *run = place->run;
        place->record = record_at(loader, run->slot, run->first, place->attempt);
        if (!decide(loader, place)) {
            break;
        }
        loader->again = next;
        if (!next) {
            loader->again_end = &loader->again;
        }
        became_ready += stream_ready(loader, run);
    }
    return became_ready;
}

// The records of the next positions; nobody else looks at these places yet.
static uint32_t name_records(struct loader *loader, struct slot *slot, uint32_t limit)
{
    uint32_t left = slot->batch.count - slot->issued, count = left < limit ? left : limit;
    pthread_mutex_unlock(&loader->lock);
    for (uint32_t i = slot->issued; i < slot->issued + count; i++) {
        slot->places[i] = (struct place){.record = record_at(loader, slot, i, 0)};
    }
    pthread_mutex_lock(&loader->lock);
    return slot->issued + count;
}

// The positions that follow, in runs. How many runs became ready.
static uint32_t decide_next(struct loader *loader, uint32_t limit)
{
    struct slot *slot = loader->filling;
    uint32_t end = name_records(loader, slot, limit), became_ready = 0;
    bool full = false;
    while (!full && slot->issued < end) {
        struct run *run = &slot->runs[slot->issued];
        *run = (struct run){.slot = slot, .first = slot->issued};
        while (slot->issued < end && run->count < loader->run_length) {
            struct place *place = &slot->places[slot->issued];
            place->run = run;
            full = !decide(loader, place);
            if (full) {
                break;
            }
            run->count++;
            slot->issued++;
        }
        became_ready += run->count > 0 && stream_ready(loader, run);
    }
    if (slot->issued == slot->batch.count) {
        loader->filling = NULL;
    }
    return became_ready;
}

// How many reads may be begun now.
static uint32_t room(const struct loader *loader)
{
    uint32_t in_use = stream_fetches_in_use(loader);
    if (in_use > loader->ahead / 2) {
        return 0; // some at a time: neighbours are found, and threads woken, once for all of them
    }
    uint32_t more = loader->ahead - in_use, free = loader->config.depth - loader->in_flight;
    return more < free ? more : free;
}

// Fewer reads are kept ahead when they all keep arriving long before they are needed.
static void calm_down(struct loader *loader)
{
    loader->calm = loader->in_flight == 0 ? loader->calm + 1 : 0;
    if (loader->calm >= FEEDER_CALM) {
        loader->calm = 0;
        uint32_t less = loader->ahead - loader->ahead / 8;
        loader->ahead = less > loader->ahead_least ? less : loader->ahead_least;
    }
}

// Decides some positions; false when none can be decided now.
static bool gather(struct loader *loader)
{
    uint32_t limit = room(loader);
    if (limit == 0) {
        loader->wants_room = true;
        return false;
    }
    uint32_t became_ready;
    if (loader->again) { // first: a batch waits for them
        became_ready = decide_again(loader, limit);
    } else {
        while (!loader->filling) {
            if (!begin_batch(loader)) {
                loader->wants_slot = true;
                return false;
            }
        }
        became_ready = decide_next(loader, limit);
    }
    if (loader->window.want_count + loader->window.fetch_count > 0) {
        calm_down(loader);
    }
    stream_wake_workers(loader, became_ready);
    return true;
}

// --- reads ---------------------------------------------------------------------------------------

static bool before(const struct want *left, const struct want *right)
{
    return left->file != right->file ? left->file < right->file : left->offset < right->offset;
}

static void sort(struct want *wants, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        struct want moved = wants[i];
        uint32_t to = i;
        for (; to > 0 && before(&moved, &wants[to - 1]); to--) {
            wants[to] = wants[to - 1];
        }
        wants[to] = moved;
    }
}

// Whether the read can bring the record too, which starts no earlier.
static bool joins(const struct fetch *fetch, const struct want *want)
{
    const struct read_request *read = &fetch->request;
    return !want->place->alone && !fetch->places->alone && read->file == want->file &&
           want->offset <= read->offset + read->len + FEEDER_GAP &&
           (want->offset + want->length <= read->offset + read->len ||
            want->offset + want->length - read->offset <= FEEDER_READ_BYTES);
}

static void join(struct fetch *fetch, const struct want *want)
{
    struct read_request *read = &fetch->request;
    uint64_t end = want->offset + want->length;
    if (end > read->offset + read->len) {
        read->len = (uint32_t)(end - read->offset);
    }
    fetch->shared = true;
}

// Past the page cache only whole pages can be read; what the file's last page lacks is left to the
// page cache.
static void widen(const struct loader *loader, struct fetch *fetch)
{
    struct read_request *read = &fetch->request;
    uint64_t page = ARENA_ALIGNMENT, begin = read->offset / page * page;
    uint64_t end = (read->offset + read->len + page - 1) / page * page;
    if (end <= dataset_file_length(loader->dataset, read->file)) {
        read->file += loader->file_count;
        read->offset = begin;
        read->len = (uint32_t)(end - begin);
        fetch->shared = true;
    }
}

// Turns the records that are wanted into as few reads as they need.
static void merge(struct loader *loader)
{
    struct window *window = &loader->window;
    struct fetch *last = NULL;
    sort(window->wants, window->want_count);
    for (uint32_t i = 0; i < window->want_count; i++) {
        const struct want *want = &window->wants[i];
        if (last && joins(last, want)) {
            join(last, want);
        } else {
            last = window->spares[--window->spare_count];
            last->request = (struct read_request){
                .file = want->file, .offset = want->offset, .len = want->length};
            window->fetches[window->fetch_count++] = last;
        }
        want->place->fetch = last;
        want->place->next = last->places;
        last->places = want->place;
        last->users++;
    }
    for (uint32_t i = 0; loader->direct && i < window->fetch_count; i++) {
        struct fetch *fetch = window->fetches[i];
        if (fetch->block || !fetch->places->alone) {
            widen(loader, fetch);
        }
    }
}

// Fetches that merging saved go back.
static void close_window(struct loader *loader)
{
    struct window *window = &loader->window;
    if (window->want_count + window->fetch_count == 0) {
        return; // all of it is in memory
    }
    window->spare_count = window->want_count;
    pthread_mutex_unlock(&loader->lock);
    merge(loader);
    pthread_mutex_lock(&loader->lock);
    loader->counters.shared += window->spare_count;
    while (window->spare_count > 0) {
        give_fetch(loader, window->spares[--window->spare_count]);
    }
    window->want_count = 0;
}

static uint64_t aligned_length(const struct fetch *fetch)
{
    return (fetch->request.len + (uint64_t)ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

// Begins the window's reads; false when the arena has no room.
static bool launch(struct loader *loader)
{
    struct window *window = &loader->window;
    uint64_t bytes = 0;
    uint32_t users = 0, piece;
    for (uint32_t i = 0; i < window->fetch_count; i++) {
        bytes += aligned_length(window->fetches[i]);
        users += window->fetches[i]->users;
    }
    uint8_t *buf = arena_take(&loader->arena, bytes, users, &piece);
    if (!buf) {
        loader->wants_arena = true;
        return false;
    }
    loader->in_flight += window->fetch_count;
    loader->counters.reads += window->fetch_count;
    pthread_mutex_unlock(&loader->lock);
    for (uint32_t i = 0; i < window->fetch_count; i++) {
        struct fetch *fetch = window->fetches[i];
        fetch->piece = piece;
        fetch->request.buf = buf;
        buf += aligned_length(fetch);
        reader_submit(&loader->reader, &fetch->request);
    }
    pthread_mutex_lock(&loader->lock);
    window->fetch_count = 0;
    window->bytes = 0;
    return true;
}

// --- the thread ----------------------------------------------------------------------------------

static void set_idle_cause(struct loader *loader)
{
    enum idle_cause cause = IDLE_READ;
    if (stream_fetches_in_use(loader) == 0 && !loader->filling && !loader->again) {
        cause = stream_over(loader, loader->feeding) ? IDLE_END : IDLE_SLOT;
    }
    if (cause != loader->idle_cause) {
        stream_count_idle(loader);
        loader->idle_cause = cause;
    }
}

// Decides and begins what can be; whether reads were begun.
static bool feed(struct loader *loader)
{
    bool begun = false;
    struct window *window = &loader->window;
    loader->wants_slot = loader->wants_room = loader->wants_arena = false;
    while (!loader->closing) {
        if (window->fetch_count == 0) {
            if (!gather(loader)) {
                break;
            }
            close_window(loader);
        }
        if (window->fetch_count > 0) {
            if (!launch(loader)) {
                break;
            }
            begun = true;
        }
    }
    set_idle_cause(loader);
    return begun;
}

// A read has come to its end, well or not; how many pieces of work that made.
static uint32_t hand_over(struct loader *loader, struct fetch *fetch)
{
    struct cache_block *block = fetch->block;
    loader->in_flight--;
    loader->counters.read_bytes += fetch->request.done;
    if (!block) {
        return stream_arrive(loader, fetch);
    }
    if (fetch->request.done == fetch->request.len) {
        fetch->next = loader->arrived;
        loader->arrived = fetch;
        loader->ready_count++;
        return 1;
    }
    block->state = CACHE_FAILED; // each record will say for itself what is wrong, if anything
    block->fetch = NULL;
    uint32_t became_ready = stream_arrive(loader, fetch);
    stream_give(loader, fetch);
    return became_ready;
}

static void read_some(struct loader *loader)
{
    struct error error;
    size_t count;
    loader->feeder = FEEDER_READING;
    pthread_mutex_unlock(&loader->lock);
    enum status status =
        reader_wait(&loader->reader, loader->finished, loader->config.depth, &count, &error);
    pthread_mutex_lock(&loader->lock);
    loader->feeder = FEEDER_BUSY;
    loader->counters.read_calls = loader->reader.calls;
    if (status != STATUS_OK) {
        loader->broken = true;
        loader->broken_error = error;
        pthread_cond_signal(&loader->batch_ready);
        return;
    }
    // Workers wait for reads: more of them ahead may help.
    if (count > 0 && loader->idle_workers > 0 && loader->ready_count == 0) {
        loader->ahead =
            loader->ahead < loader->fetch_count / 2 ? 2 * loader->ahead : loader->fetch_count;
        loader->calm = 0;
    }
    uint32_t work = 0;
    for (size_t i = 0; i < count; i++) {
        work += hand_over(loader, (struct fetch *)(void *)loader->finished[i]);
    }
    stream_wake_workers(loader, work);
}

static void sleep_a_while(struct loader *loader)
{
    loader->feeder = FEEDER_ASLEEP;
    pthread_cond_wait(&loader->feeder_work, &loader->lock);
    loader->feeder = FEEDER_BUSY;
}

void *feeder_main(void *argument)
{
    struct loader *loader = argument;
    pthread_mutex_lock(&loader->lock);
    while (!loader->closing && !loader->broken) {
        bool begun = feed(loader);
        if (loader->closing) {
            break;
        }
        // Reads start in reader_wait at the latest. While the workers have enough to do, what
        // arrives can wait.
        if (loader->in_flight > 0 && (begun || !stream_plenty(loader))) {
            read_some(loader);
        } else {
            sleep_a_while(loader);
        }
    }
    pthread_mutex_unlock(&loader->lock);
    // The kernel ties reads to the thread that asked for them, so they are reaped here.
    reader_drain(&loader->reader);
    return NULL;
}
