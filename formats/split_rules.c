// Each rule takes from what the ones before it left.
#include "formats/split_rules.h"

#include "formats/md5.h"
#include "formats/name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TFDS_SALT "train"

// --- words -------------------------------------------------------------------------------------

static bool read_count(const char *text, uint64_t *count)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *count = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool read_percent(const char *text, double *percent)
{
    char *end;
    *percent = strtod(text, &end);
    return end != text && strcmp(end, "%") == 0 && *percent > 0 && *percent <= 100;
}

static bool read_rule(struct split_rule *rule, const char *text)
{
    static const struct {
        const char *start;
        enum rule_kind kind;
    } counted[] = {{"first:", RULE_FIRST},
                   {"last:", RULE_LAST},
                   {"random:", RULE_RANDOM},
                   {"tfds:", RULE_TFDS}};
    for (size_t i = 0; i < sizeof counted / sizeof *counted; i++) {
        size_t len = strlen(counted[i].start);
        if (strncmp(text, counted[i].start, len) == 0) {
            rule->kind = counted[i].kind;
            return read_count(text + len, &rule->count);
        }
    }
    rule->kind = strcmp(text, "rest") == 0 ? RULE_REST : RULE_PERCENT;
    return rule->kind == RULE_REST || read_percent(text, &rule->percent);
}

static enum status read_piece(struct split_rule *rules, size_t *count, const char *piece,
                              struct error *error)
{
    struct split_rule *rule = &rules[*count];
    *rule = (struct split_rule){0};
    const char *equals = strchr(piece, '=');
    size_t len = equals ? (size_t)(equals - piece) : 0;
    if (equals == NULL || len >= sizeof rule->name || name_file_fault(piece, len) != NULL) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "'%.80s' is not NAME=RULE with a name of letters, digits, '.', "
                         "'_' and '-'",
                         piece);
    }
    memcpy(rule->name, piece, len);
    if (!read_rule(rule, equals + 1)) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "'%.80s' is none of first:N, last:N, random:N, tfds:N, N%%, rest",
                         equals + 1);
    }
    for (size_t i = 0; i < *count; i++) {
        if (strcmp(rules[i].name, rule->name) == 0) {
            return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "'%s' is named twice",
                             rule->name);
        }
    }
    (*count)++;
    return STATUS_OK;
}

enum status split_rules_parse(struct split_rule *rules, size_t capacity, size_t *count,
                              const char *text, struct error *error)
{
    *count = 0;
    enum status status = STATUS_OK;
    while (status == STATUS_OK) {
        size_t len = strcspn(text, ",");
        char piece[160];
        if (*count == capacity || len >= sizeof piece) {
            return error_set(error, STATUS_LIMIT, NULL, NOWHERE, NOWHERE,
                             "more than %zu parts, or one that is too long", capacity);
        }
        snprintf(piece, sizeof piece, "%.*s", (int)len, text);
        status = read_piece(rules, count, piece, error);
        if (text[len] == '\0') {
            break;
        }
        text += len + 1;
    }
    return status;
}

// --- orders ------------------------------------------------------------------------------------

// TensorFlow Datasets sorts the images of a split by the MD5 of the split's name and the key that
// the set's builder gives them, which for ImageNet is the file's name without its folder. The first
// eight bytes decide: among 1.3 million, two that are equal are improbable (1 in 20 million).
static uint64_t tfds_key(const char *name)
{
    char text[sizeof TFDS_SALT + 4096];
    uint8_t digest[MD5_BYTES];
    const char *slash = strrchr(name, '/');
    int len = snprintf(text, sizeof text, "%s%s", TFDS_SALT, slash ? slash + 1 : name);
    md5(text, (size_t)len < sizeof text ? (size_t)len : sizeof text - 1, digest);
    uint64_t key = 0;
    for (int i = 0; i < 8; i++) {
        key = key << 8 | digest[i];
    }
    return key;
}

static uint64_t mixed(uint64_t value)
{
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

uint64_t split_rule_key(enum rule_kind kind, const char *name, int64_t seed)
{
    if (kind == RULE_TFDS) {
        return tfds_key(name);
    }
    uint64_t hash = mixed((uint64_t)seed + UINT64_C(0x9e3779b97f4a7c15));
    for (; *name != '\0'; name++) {
        hash = (hash ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    }
    return mixed(hash);
}

// --- taking ------------------------------------------------------------------------------------

struct place {
    uint64_t key, image;
};

static int compare_places(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    if (a->key != b->key) {
        return a->key < b->key ? -1 : 1;
    }
    return a->image < b->image ? -1 : a->image > b->image;
}

static enum status take_smallest(uint8_t rule, uint64_t count, const uint64_t *keys, uint8_t *where,
                                 uint64_t images, uint64_t open, struct error *error)
{
    struct place *places = malloc((size_t)(open + 1) * sizeof *places);
    if (places == NULL) {
        return error_errno(error, ENOMEM, NULL, NOWHERE, "allocate memory to split");
    }
    uint64_t used = 0;
    for (uint64_t i = 0; i < images; i++) {
        if (where[i] == RULE_OPEN) {
            places[used++] = (struct place){.key = keys[i], .image = i};
        }
    }
    qsort(places, (size_t)used, sizeof *places, compare_places);
    for (uint64_t i = 0; i < count; i++) {
        where[places[i].image] = rule;
    }
    free(places);
    return STATUS_OK;
}

static void take_in_order(uint8_t rule, bool backwards, uint64_t count, uint8_t *where,
                          uint64_t images)
{
    for (uint64_t i = 0; i < images && count > 0; i++) {
        uint64_t image = backwards ? images - 1 - i : i;
        if (where[image] == RULE_OPEN) {
            where[image] = rule;
            count--;
        }
    }
}

enum status split_rules_apply(const struct split_rule *rules, size_t count,
                              const struct split_keys *keys, uint8_t *where, uint64_t images,
                              struct error *error)
{
    uint64_t all = 0;
    for (uint64_t i = 0; i < images; i++) {
        all += where[i] == RULE_OPEN;
    }
    uint64_t open = all;
    double share = 0;
    enum status status = STATUS_OK;
    for (size_t r = 0; r < count && status == STATUS_OK; r++) {
        const struct split_rule *rule = &rules[r];
        uint64_t wanted = rule->kind == RULE_REST ? open : rule->count;
        if (rule->kind == RULE_PERCENT) { // rounded so that shares that add up to all leave none
            uint64_t before = (uint64_t)(share / 100 * (double)all + 0.5);
            share += rule->percent;
            wanted = (uint64_t)(share / 100 * (double)all + 0.5) - before;
        }
        if (wanted > open) {
            return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                             "'%s' wants %llu images, but %llu of %llu are left for it", rule->name,
                             (unsigned long long)wanted, (unsigned long long)open,
                             (unsigned long long)all);
        }
        if (rule->kind == RULE_FIRST || rule->kind == RULE_LAST || rule->kind == RULE_REST) {
            take_in_order((uint8_t)r, rule->kind == RULE_LAST, wanted, where, images);
        } else {
            const uint64_t *order = rule->kind == RULE_TFDS ? keys->tfds : keys->random;
            status = take_smallest((uint8_t)r, wanted, order, where, images, open, error);
        }
        open -= wanted;
    }
    return status;
}
