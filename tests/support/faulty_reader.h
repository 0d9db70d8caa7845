// A reader backend that stands in front of the real one and makes its reads fail, come short, late
// and out of order, as disks, kernels and signals do. Install with faulty_reader_install.
#ifndef TESTS_SUPPORT_FAULTY_READER_H
#define TESTS_SUPPORT_FAULTY_READER_H

#include "pipeline/reader.h"

// Chances in a thousand, per system call.
struct faulty_reader_plan {
    uint64_t seed;
    unsigned eio, eagain, eintr; // `eio` never three times in a row for one read
    unsigned shortened;          // fewer bytes than asked for
    unsigned flipped;            // one bit of what arrived is wrong
    unsigned late; // the completion is held back for some waits, so others overtake it
    unsigned slow; // the wait itself sleeps up to a millisecond
    // Reads that cover this byte of this file always fail so; errnum 0 = none.
    uint32_t bad_file;
    uint64_t bad_offset;
    int bad_errnum;
    // The first tries of every read fail so, in this order; 0 ends the list.
    int script[8];
};

// Faults injected since install, of all kinds but `slow`.
uint64_t faulty_reader_faults(void);
void faulty_reader_install(const struct faulty_reader_plan *plan);
void faulty_reader_remove(void);

#endif
