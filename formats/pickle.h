// What a pickle holds, if it holds nothing but tuples, lists, bytes, text and numbers: the subset
// that `(bytes, label)` pairs in LMDBs are written in. Nothing is ever called or imported: a pickle
// that would do so is refused, with the name of what it would call.
//
// A pickle is a program for a machine with a stack and a memo (Python's Lib/pickletools.py has the
// opcodes). Protocols 2 to 5; protocol 2 of Python 3 calls a function even for bytes, so its
// bytes are refused too, those of Python 2 are not.
#ifndef FORMATS_PICKLE_H
#define FORMATS_PICKLE_H

#include "formats/source_range.h"

#define PICKLE_VALUES 64 // on the stack, in sequences, in the memo: of each

enum pickle_type { PICKLE_OTHER, PICKLE_NUMBER, PICKLE_BYTES, PICKLE_TEXT, PICKLE_SEQUENCE };

struct pickle_value {
    enum pickle_type type;
    int64_t number;
    uint64_t at, len; // bytes, text: in the range. Sequence: items of the pickle
};

struct pickle {
    struct pickle_value items[PICKLE_VALUES]; // those of a sequence follow each other
    uint32_t item_count;
    struct pickle_value result;
};

// STATUS_UNSUPPORTED for a pickle of something else, STATUS_CORRUPT or _TRUNCATED for a broken one.
enum status pickle_parse(struct pickle *pickle, struct source_range *range, struct error *error);

#endif
