// Fuzzing without a fuzzer's runtime: seeded mutants of small valid inputs, repaired so that
// checksums and headers hold and the code behind them is what meets the damage.
//
// A target is one program of tests/fuzz. What it does depends on how it is started:
//
//   build/tests/fuzz/NAME                 the corpus and a few thousand mutants: a suite of `make
//   test` FUZZ_ROUNDS=n build/tests/fuzz/NAME   mutants until n of them got past the header; each
//   has 10
//                                         seconds and 1 GiB; what breaks a promise is written to
//                                         FUZZ_FINDINGS (default: the working directory)
//   build/tests/fuzz/NAME FILE...         these inputs again
//
// FUZZ_SEED chooses other mutants; a mutant is a function of seed and number alone. Built by clang
// with -fsanitize=fuzzer -DFUZZ_LIBFUZZER a target is a libFuzzer program.
#ifndef TESTS_SUPPORT_FUZZ_H
#define TESTS_SUPPORT_FUZZ_H

#include "formats/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_INPUT_BYTES 65536 // longest input

enum fuzz_outcome {
    FUZZ_REFUSED,  // by the first look at it
    FUZZ_ENTERED,  // got past the header, and then no further
    FUZZ_ACCEPTED, // all of it was taken for good
};

struct fuzz_target {
    const char *name; // of the program, and of its folder in tests/fuzz/corpus
    // Adds the seeds and opens what `run` needs. Mutants are made after it, in the same process.
    void (*open)(void);
    void (*close)(void);
    // Makes checksums and lengths hold again; may lengthen the input up to FUZZ_INPUT_BYTES.
    // Returns the new length. NULL: nothing to repair.
    size_t (*repair)(uint8_t *bytes, size_t len, uint64_t *random);
    // Uses the input as a user would, and aborts (FUZZ_CHECK) when a promise is broken. `bytes` is
    // malloc'ed memory of exactly `len` bytes.
    enum fuzz_outcome (*run)(const uint8_t *bytes, size_t len);
};

// To be called in `open`. Mutants leave the first `keep` bytes alone three times out of four.
void fuzz_seed(const void *bytes, size_t len, size_t keep);

// A number below `bound`, which is not zero.
size_t fuzz_below(uint64_t *random, size_t bound);
// A number that depends on the input alone: what a target draws (windows, sizes) comes from it.
uint64_t fuzz_random_of(const uint8_t *bytes, size_t len);

// Puts an input where functions that take a path find it; the path stays the same.
const char *fuzz_file(const uint8_t *bytes, size_t len);

void fuzz_fail(const char *file, int line, const char *format, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
#define FUZZ_CHECK(promise)                                                                        \
    do {                                                                                           \
        if (!(promise)) {                                                                          \
            fuzz_fail(__FILE__, __LINE__, "%s", #promise);                                         \
        }                                                                                          \
    } while (0)

// A failure says what it is: status and error agree, there is a reason, and it is the input's fault
// (damage, limits, what is unknown), not ours.
void fuzz_check_error(enum status status, const struct error *error);

int fuzz_main(int argc, char **argv, const struct fuzz_target *target);

// The same behind libFuzzer's entry points. Its corpus holds inputs as they are run: repaired.
typedef size_t fuzz_mutator(uint8_t *bytes, size_t len, size_t most);
int fuzz_libfuzzer(const uint8_t *bytes, size_t len, const struct fuzz_target *target);
size_t fuzz_libfuzzer_mutate(uint8_t *bytes, size_t len, size_t most, uint64_t seed,
                             const struct fuzz_target *target, fuzz_mutator *mutator);

#ifdef FUZZ_LIBFUZZER
#define FUZZ_MAIN(target)                                                                          \
    size_t LLVMFuzzerMutate(uint8_t *bytes, size_t len, size_t most);                              \
    size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t len, size_t most, unsigned seed);        \
    size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t len, size_t most, unsigned seed)         \
    {                                                                                              \
        return fuzz_libfuzzer_mutate(bytes, len, most, seed, &(target), LLVMFuzzerMutate);         \
    }                                                                                              \
    int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);                                  \
    int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)                                   \
    {                                                                                              \
        return fuzz_libfuzzer(bytes, len, &(target));                                              \
    }
#else
#define FUZZ_MAIN(target)                                                                          \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return fuzz_main(argc, argv, &(target));                                                   \
    }
#endif

#endif
