// A list of pairs of texts; what is on disk is read when it is opened and again before each
// writing.
#include "trainer/cuda/plan_cache.h"

#include "formats/crc32c.h"
#include "formats/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT ((uint64_t)16 << 20)

struct entry {
    char *key, *plan;
};

struct plan_cache {
    char directory[400], path[512];
    struct entry *entries;
    size_t count, capacity;
};

// --- the list ------------------------------------------------------------------------------------

static struct entry *find(const struct plan_cache *cache, const char *key)
{
    for (size_t i = 0; i < cache->count; i++) {
        if (strcmp(cache->entries[i].key, key) == 0) {
            return &cache->entries[i];
        }
    }
    return NULL;
}

static bool grow(struct plan_cache *cache)
{
    if (cache->count < cache->capacity) {
        return true;
    }
    size_t capacity = cache->capacity > 0 ? 2 * cache->capacity : 64;
    struct entry *entries = realloc(cache->entries, capacity * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    cache->entries = entries;
    cache->capacity = capacity;
    return true;
}

// Takes the place of an older plan with this key.
static bool put(struct plan_cache *cache, const char *key, const char *plan)
{
    struct entry new = {strdup(key), strdup(plan)}, *old = find(cache, key);
    if (new.key == NULL || new.plan == NULL || (old == NULL && !grow(cache))) {
        free(new.key);
        free(new.plan);
        return false;
    }
    if (old != NULL) {
        free(old->key);
        free(old->plan);
        *old = new;
    } else {
        cache->entries[cache->count++] = new;
    }
    return true;
}

// --- the file ------------------------------------------------------------------------------------

// Cuts "CRC\tKEY\tPLAN" where it lies; false when that is not what it is.
static bool parse_line(char *line, char **key, char **plan)
{
    char *end = NULL;
    unsigned long crc = strtoul(line, &end, 16);
    if (end != line + 8 || *end != '\t' || crc != crc32c(0, end + 1, strlen(end + 1))) {
        return false;
    }
    *key = end + 1;
    char *tab = strchr(*key, '\t');
    if (tab == NULL || strchr(tab + 1, '\t') != NULL) {
        return false;
    }
    *tab = '\0';
    *plan = tab + 1;
    return true;
}

// Adds what the file holds and the list does not.
static void read_file(struct plan_cache *cache)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    if (cache->path[0] == '\0' ||
        file_read_all(cache->path, FILE_LIMIT, &bytes, &len, NULL) != STATUS_OK) {
        return;
    }
    char *rest = (char *)bytes, *line = NULL;
    while ((line = strsep(&rest, "\n")) != NULL) {
        char *key = NULL, *plan = NULL;
        if (parse_line(line, &key, &plan) && find(cache, key) == NULL) {
            put(cache, key, plan); // without memory it is merely not known
        }
    }
    free(bytes);
}

static bool write_lines(const struct plan_cache *cache, FILE *stream)
{
    bool fine = true;
    for (size_t i = 0; i < cache->count && fine; i++) {
        const struct entry *entry = &cache->entries[i];
        uint32_t crc = crc32c(0, entry->key, strlen(entry->key));
        crc = crc32c(crc, "\t", 1);
        crc = crc32c(crc, entry->plan, strlen(entry->plan));
        fine = fprintf(stream, "%08x\t%s\t%s\n", crc, entry->key, entry->plan) > 0;
    }
    return fine;
}

static void write_file(const struct plan_cache *cache)
{
    char *text = NULL;
    size_t len = 0;
    FILE *stream = cache->path[0] != '\0' ? open_memstream(&text, &len) : NULL;
    if (stream == NULL) {
        return;
    }
    bool fine = write_lines(cache, stream);
    fine = fclose(stream) == 0 && fine;
    if (fine && file_make_directories(cache->directory, NULL) == STATUS_OK) {
        file_write_durably(cache->path, text, len, NULL);
    }
    free(text);
}

// --- where it lies -------------------------------------------------------------------------------

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool choose_directory(char *directory, size_t capacity)
{
    const char *own = variable("BYOL_CACHE"), *base = variable("XDG_CACHE_HOME"),
               *home = variable("HOME");
    int length = -1;
    if (own != NULL) {
        length = snprintf(directory, capacity, "%s", own);
    } else if (base != NULL && base[0] == '/') { // a relative one is to be ignored
        length = snprintf(directory, capacity, "%s/byol", base);
    } else if (home != NULL) {
        length = snprintf(directory, capacity, "%s/.cache/byol", home);
    }
    return length > 0 && (size_t)length < capacity;
}

// The name of a device may hold anything; in a file's name letters, digits, '.', '-' and '_' stay.
static void choose_path(struct plan_cache *cache, const char *library, const char *device)
{
    char name[108];
    int length = snprintf(name, sizeof name, "%s-%s.plans", library, device);
    for (char *at = name; *at != '\0'; at++) {
        bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                     (*at >= '0' && *at <= '9') || *at == '.' || *at == '-';
        *at = plain ? *at : '_';
    }
    if (length > 0 && (size_t)length < sizeof name &&
        choose_directory(cache->directory, sizeof cache->directory)) {
        snprintf(cache->path, sizeof cache->path, "%s/%s", cache->directory, name);
    }
}

// --- the calls -----------------------------------------------------------------------------------

enum status plan_cache_open(struct plan_cache **out, const char *library, const char *device,
                            struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for the known plans");
    }
    choose_path(*out, library, device);
    read_file(*out);
    return STATUS_OK;
}

void plan_cache_close(struct plan_cache **cache)
{
    if (*cache == NULL) {
        return;
    }
    for (size_t i = 0; i < (*cache)->count; i++) {
        free((*cache)->entries[i].key);
        free((*cache)->entries[i].plan);
    }
    free((*cache)->entries);
    free(*cache);
    *cache = NULL;
}

const char *plan_cache_path(const struct plan_cache *cache)
{
    return cache->path;
}

const char *plan_cache_find(const struct plan_cache *cache, const char *key)
{
    const struct entry *entry = find(cache, key);
    return entry != NULL ? entry->plan : NULL;
}

enum status plan_cache_add(struct plan_cache *cache, const char *key, const char *plan,
                           struct error *error)
{
    if (!put(cache, key, plan)) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to remember a plan");
    }
    read_file(cache);
    write_file(cache);
    return STATUS_OK;
}
