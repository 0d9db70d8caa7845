// A walk over the leaves of an LMDB's main tree. Pages on the way down are held one a level.
#include "formats/lmdb_walk.h"
#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD        16u // of a page
#define NODE        8u  // of a node, before its key
#define META_BYTES  (HEAD + 136u)
#define MAGIC       0xBEEFC0DEu
#define VERSION     1u
#define DEPTH       32u
#define PAGE_BRANCH 1u
#define PAGE_LEAF   2u
#define PAGE_LARGE  4u
#define PAGE_META   8u
#define NODE_LARGE  1u
#define NODE_TREE   2u
#define NODE_MANY   4u
#define TREE_MANY   4u // MDB_DUPSORT

struct level {
    uint8_t *page;
    uint64_t number;
    uint32_t next, count; // nodes
};

struct lmdb_walk {
    char path[600];
    int fd;
    uint64_t file_size, root, entries, seen, pages; // pages: those visited
    uint32_t page_size, depth;
    struct level levels[DEPTH];
    uint32_t used;       // levels
    const uint8_t *node; // of the current entry
    uint32_t node_room;  // bytes of its page from there on
};

static uint16_t get16(const uint8_t *from)
{
    return (uint16_t)source_range_number(from, 2);
}

static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)source_range_number(from, 4);
}

static uint64_t get64(const uint8_t *from)
{
    return source_range_number(from, 8);
}

static enum status corrupt(const struct lmdb_walk *walk, uint64_t page, const char *what,
                           struct error *error)
{
    uint64_t offset = page > UINT64_MAX / walk->page_size ? NOWHERE : page * walk->page_size;
    return error_set(error, STATUS_CORRUPT, walk->path, offset, NOWHERE, "a damaged LMDB: %s",
                     what);
}

// --- opening -----------------------------------------------------------------------------------

void lmdb_walk_file(const char *path, char *file, size_t size)
{
    struct stat about;
    bool directory = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
    snprintf(file, size, "%s%s", path, directory ? "/data.mdb" : "");
}

enum status lmdb_walk_recognise(const char *file, bool *mine, struct error *error)
{
    uint8_t head[HEAD + 4];
    *mine = false;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        // A folder without a data.mdb is none.
        return errno == ENOENT || errno == ENOTDIR
                   ? STATUS_OK
                   : error_errno(error, errno, file, NOWHERE, "open");
    }
    ssize_t got = pread(fd, head, sizeof head, 0);
    close(fd);
    *mine = got == (ssize_t)sizeof head && (get16(head + 10) & PAGE_META) != 0 &&
            get32(head + HEAD) == MAGIC;
    return STATUS_OK;
}

// Takes the meta page at `offset` if it is a good one, and newer than `*newest`.
static enum status read_meta(struct lmdb_walk *walk, uint64_t offset, bool *found, uint64_t *newest,
                             struct error *error)
{
    uint8_t bytes[META_BYTES];
    enum status status = file_read_at(walk->fd, walk->path, bytes, sizeof bytes, offset, error);
    const uint8_t *meta = bytes + HEAD, *tree = meta + 24 + 48;
    if (status != STATUS_OK || (get16(bytes + 10) & PAGE_META) == 0 || get32(meta) != MAGIC) {
        return status;
    }
    if (get32(meta + 4) != VERSION) {
        return error_set(error, STATUS_VERSION, walk->path, offset + HEAD + 4, NOWHERE,
                         "an LMDB of format version %" PRIu32 "; version 1 is read",
                         get32(meta + 4));
    }
    uint64_t transaction = get64(meta + 24 + 2 * 48 + 8);
    if (*found && transaction < *newest) {
        return STATUS_OK;
    }
    *found = true;
    *newest = transaction;
    walk->page_size = get32(meta + 24);
    walk->depth = get16(tree + 6);
    walk->entries = get64(tree + 32);
    walk->root = get64(tree + 40);
    if ((get16(tree + 4) & TREE_MANY) != 0) {
        return error_set(error, STATUS_UNSUPPORTED, walk->path, NOWHERE, NOWHERE,
                         "an LMDB with several values a key (MDB_DUPSORT)");
    }
    return STATUS_OK;
}

static enum status read_metas(struct lmdb_walk *walk, struct error *error)
{
    bool found = false;
    uint64_t newest = 0;
    enum status status = read_meta(walk, 0, &found, &newest, error);
    if (status != STATUS_OK) {
        return status;
    }
    uint32_t size = walk->page_size;
    bool plausible = found && size >= 512 && size <= 65536 && (size & (size - 1)) == 0;
    if (plausible) {
        status = read_meta(walk, size, &found, &newest, error);
    }
    if (status == STATUS_OK && (!plausible || walk->page_size != size)) {
        walk->page_size = 4096; // only for the error's offset
        return corrupt(walk, 0, "its first pages do not say how large pages are", error);
    }
    if (status == STATUS_OK && walk->depth > DEPTH) {
        return corrupt(walk, 0, "a tree that is too deep", error);
    }
    return status;
}

enum status lmdb_walk_open(struct lmdb_walk **out, const char *file, struct error *error)
{
    struct lmdb_walk *walk = calloc(1, sizeof *walk);
    *out = walk;
    if (walk == NULL) {
        return error_errno(error, ENOMEM, file, NOWHERE, "allocate memory to read");
    }
    snprintf(walk->path, sizeof walk->path, "%s", file);
    walk->fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat about;
    if (walk->fd < 0 || fstat(walk->fd, &about) != 0) {
        return error_errno(error, errno, file, NOWHERE, "open");
    }
    walk->file_size = (uint64_t)about.st_size;
    enum status status = read_metas(walk, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (uint32_t i = 0; i < walk->depth; i++) {
        walk->levels[i].page = malloc(walk->page_size);
        if (walk->levels[i].page == NULL) {
            return error_errno(error, ENOMEM, file, NOWHERE, "allocate memory to read");
        }
    }
    return STATUS_OK;
}

void lmdb_walk_close(struct lmdb_walk **walk)
{
    if (*walk != NULL) {
        for (uint32_t i = 0; i < DEPTH; i++) {
            free((*walk)->levels[i].page);
        }
        if ((*walk)->fd >= 0) {
            close((*walk)->fd);
        }
        free(*walk);
        *walk = NULL;
    }
}

uint64_t lmdb_walk_entries(const struct lmdb_walk *walk)
{
    return walk->entries;
}

// --- walking -----------------------------------------------------------------------------------

// Loads page `number` one level further down.
static enum status enter(struct lmdb_walk *walk, uint64_t number, struct error *error)
{
    uint64_t in_file = walk->file_size / walk->page_size;
    if (walk->used == walk->depth) {
        return corrupt(walk, number, "a branch where a leaf should be", error);
    }
    if (number < 2 || number >= in_file) {
        return error_set(error, STATUS_TRUNCATED, walk->path, walk->file_size, NOWHERE,
                         "the LMDB refers to page %" PRIu64 ", the file has %" PRIu64
                         ": it was cut short, or is damaged",
                         number, in_file);
    }
    // Each page is entered once, so a tree that leads back into itself comes to an end too.
    if (walk->pages++ >= in_file) {
        return corrupt(walk, number, "more pages in the tree than in the file", error);
    }
    struct level *level = &walk->levels[walk->used];
    enum status status = file_read_at(walk->fd, walk->path, level->page, walk->page_size,
                                      number * walk->page_size, error);
    if (status != STATUS_OK) {
        return status;
    }
    unsigned wanted = walk->used + 1 == walk->depth ? PAGE_LEAF : PAGE_BRANCH;
    unsigned flags = get16(level->page + 10), lower = get16(level->page + 12);
    if (get64(level->page) != number || (flags & 0x2f) != wanted) {
        return corrupt(walk, number, "not the page that the tree refers to", error);
    }
    if (lower <= HEAD || lower > walk->page_size || lower % 2 != 0) {
        return corrupt(walk, number, "a page without entries, or with too many", error);
    }
    level->number = number;
    level->next = 0;
    level->count = (lower - HEAD) / 2;
    walk->used++;
    return STATUS_OK;
}

// The next node of a level with the bytes of the page from it on. NULL when it is not inside.
static const uint8_t *take_node(const struct lmdb_walk *walk, struct level *level, uint32_t *room)
{
    uint32_t at = get16(level->page + HEAD + 2 * (size_t)level->next++);
    if (at < HEAD || at > walk->page_size || walk->page_size - at < NODE) {
        return NULL;
    }
    *room = walk->page_size - at;
    return level->page + at;
}

static enum status descend(struct lmdb_walk *walk, struct error *error)
{
    enum status status = STATUS_OK;
    while (status == STATUS_OK && walk->used < walk->depth) {
        struct level *level = &walk->levels[walk->used - 1];
        uint32_t room;
        const uint8_t *node = take_node(walk, level, &room);
        if (node == NULL) {
            return corrupt(walk, level->number, "an entry outside its page", error);
        }
        uint64_t child = get32(node) | (uint64_t)get16(node + 4) << 32;
        status = enter(walk, child, error);
    }
    return status;
}

// Stands on a leaf that has another entry.
static enum status find_leaf(struct lmdb_walk *walk, struct error *error)
{
    if (walk->pages == 0) {
        enum status status = walk->root == UINT64_MAX || walk->depth == 0
                                 ? STATUS_END
                                 : enter(walk, walk->root, error);
        return status ? status : descend(walk, error);
    }
    while (walk->used > 0) {
        const struct level *level = &walk->levels[walk->used - 1];
        if (level->next < level->count) {
            return descend(walk, error);
        }
        walk->used--;
    }
    return STATUS_END;
}

// A value on pages of its own, `number` the first of them.
static enum status locate_large(const struct lmdb_walk *walk, uint64_t number, uint64_t len,
                                struct source_range *value, struct error *error)
{
    uint8_t head[HEAD];
    uint64_t in_file = walk->file_size / walk->page_size, pages;
    if (number < 2 || number >= in_file) {
        return error_set(error, STATUS_TRUNCATED, walk->path, walk->file_size, NOWHERE,
                         "the LMDB refers to page %" PRIu64 ", the file has %" PRIu64
                         ": it was cut short, or is damaged",
                         number, in_file);
    }
    enum status status =
        file_read_at(walk->fd, walk->path, head, HEAD, number * walk->page_size, error);
    if (status != STATUS_OK) {
        return status;
    }
    pages = get32(head + 12);
    if (get64(head) != number || (get16(head + 10) & 0x2f) != PAGE_LARGE) {
        return corrupt(walk, number, "not the page that holds a value", error);
    }
    if (pages > in_file - number || len + HEAD > pages * walk->page_size) {
        return corrupt(walk, number, "a value that is longer than its pages", error);
    }
    source_range_file(value, walk->fd, walk->path, number * walk->page_size + HEAD, len);
    return STATUS_OK;
}

// The current node's key must be inside its page, and its value a plain one.
static enum status check_node(const struct lmdb_walk *walk, uint64_t page, struct error *error)
{
    uint32_t flags = get16(walk->node + 4), key_len = get16(walk->node + 6);
    if ((flags & (NODE_TREE | NODE_MANY)) != 0) {
        return error_set(error, STATUS_UNSUPPORTED, walk->path, NOWHERE, NOWHERE,
                         "an LMDB with databases of their own names inside, or several values a "
                         "key");
    }
    if (key_len == 0 || key_len > LMDB_KEY_BYTES || key_len > walk->node_room - NODE) {
        return corrupt(walk, page, "a key outside its page", error);
    }
    return STATUS_OK;
}

enum status lmdb_walk_next(struct lmdb_walk *walk, const uint8_t **key, size_t *key_len,
                           struct error *error)
{
    enum status status = find_leaf(walk, error);
    if (status == STATUS_END && walk->seen != walk->entries) {
        return error_set(error, STATUS_CORRUPT, walk->path, NOWHERE, NOWHERE,
                         "a damaged LMDB: %" PRIu64 " entries of %" PRIu64, walk->seen,
                         walk->entries);
    }
    if (status != STATUS_OK) {
        return status;
    }
    struct level *leaf = &walk->levels[walk->used - 1];
    walk->node = take_node(walk, leaf, &walk->node_room);
    if (walk->node == NULL) {
        return corrupt(walk, leaf->number, "an entry outside its page", error);
    }
    walk->seen++;
    *key = walk->node + NODE;
    *key_len = get16(walk->node + 6);
    return check_node(walk, leaf->number, error);
}

enum status lmdb_walk_value(const struct lmdb_walk *walk, struct source_range *value,
                            struct error *error)
{
    const struct level *leaf = &walk->levels[walk->used - 1];
    uint32_t len = get32(walk->node), before = NODE + get16(walk->node + 6);
    uint32_t room = walk->node_room - before;
    const uint8_t *data = walk->node + before;
    bool large = (get16(walk->node + 4) & NODE_LARGE) != 0;
    if (room < (large ? 8 : len)) {
        return corrupt(walk, leaf->number, "a value outside its page", error);
    }
    if (large) {
        return locate_large(walk, get64(data), len, value, error);
    }
    source_range_file(value, walk->fd, walk->path,
                      leaf->number * walk->page_size + (uint64_t)(data - leaf->page), len);
    return STATUS_OK;
}
