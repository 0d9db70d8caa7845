// The rules of `--split`: which images go into which dataset.
#ifndef FORMATS_SPLIT_RULES_H
#define FORMATS_SPLIT_RULES_H

#include "formats/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rule_kind {
    RULE_FIRST,   // the first of those that no earlier rule took
    RULE_LAST,    // the last of them
    RULE_RANDOM,  // drawn from them by the seed, whatever their order
    RULE_PERCENT, // the same, as a share of all
    RULE_TFDS,    // the first of them in the order that TensorFlow Datasets gives a split "train"
    RULE_REST     // all of them
};

struct split_rule {
    char name[64];
    enum rule_kind kind;
    uint64_t count; // images
    double percent;
};

// "train=first:90000,val=rest". STATUS_INVALID names the piece that is wrong.
enum status split_rules_parse(struct split_rule *rules, size_t capacity, size_t *count,
                              const char *text, struct error *error);

// The place of an image in a rule's order: a number for each name. For RULE_RANDOM, _PERCENT and
// _TFDS.
uint64_t split_rule_key(enum rule_kind kind, const char *name, int64_t seed);

// Sets where[i] of the images that are RULE_OPEN to the number of the first rule that takes them;
// the rest stay open. keys[k] (may be NULL where no rule wants them): for random rules and for
// RULE_TFDS.
#define RULE_OPEN 254
struct split_keys {
    const uint64_t *random, *tfds;
};
enum status split_rules_apply(const struct split_rule *rules, size_t count,
                              const struct split_keys *keys, uint8_t *where, uint64_t images,
                              struct error *error);

#endif
