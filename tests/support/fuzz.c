// The driver of the fuzz targets. The long run has a child that runs mutants and notes in shared
// memory which one it is at; the parent only waits. When the child dies (a sanitizer, a signal, the
// alarm), the parent writes the input to a file and starts a new child behind it.
#include "tests/support/fuzz.h"
#include "tests/support/fuzz_mutate.h"
#include "tests/support/mutate.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define INPUT_SECONDS   10
#define MEMORY_KIB      (1L << 20)
#define SUITE_MUTANTS   3000
#define MOST_FINDINGS   10
#define MOST_PER_WANTED 20 // tries for each mutant past the header

// What child and parent share.
struct progress {
    uint64_t number; // of the mutant being run
    uint64_t runs, entered, accepted;
    size_t len;
    uint8_t input[FUZZ_INPUT_BYTES];
};

static const struct fuzz_target *target;

// --- what targets call -------------------------------------------------------------------------

void fuzz_seed(const void *bytes, size_t len, size_t keep)
{
    fuzz_pool_add(bytes, len, keep);
}

uint64_t fuzz_random_of(const uint8_t *bytes, size_t len)
{
    uint64_t sum = len;
    for (size_t i = 0; i < len; i++) {
        sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return mutate_next(&sum);
}

const char *fuzz_file(const uint8_t *bytes, size_t len)
{
    static char path[64];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    FUZZ_CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, bytes, len, 0) == (ssize_t)len);
    return path;
}

void fuzz_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: broken promise: ", file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

void fuzz_check_error(enum status status, const struct error *error)
{
    if (error->status != status || error->reason[0] == '\0') {
        fuzz_fail(__FILE__, __LINE__, "%s comes with the error '%s' (%s)", status_name(status),
                  error->reason, status_name(error->status));
    }
    if (status < STATUS_CORRUPT || status > STATUS_CONFIG) {
        fuzz_fail(__FILE__, __LINE__, "an input cannot give %s: %s", status_name(status),
                  error->reason);
    }
}

// --- one input ---------------------------------------------------------------------------------

static enum fuzz_outcome run_input(const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);
    FUZZ_CHECK(exact != NULL);
    memcpy(exact, bytes, len);
    alarm(INPUT_SECONDS);
    enum fuzz_outcome outcome = target->run(exact, len);
    alarm(0);
    free(exact);
    return outcome;
}

static size_t make_mutant(uint8_t *out, uint64_t seed, uint64_t number)
{
    uint64_t random;
    size_t len = fuzz_pool_mutant(out, seed, number, &random);
    if (target->repair != NULL && fuzz_below(&random, 16) > 0) {
        len = target->repair(out, len, &random);
    }
    return len;
}

static void check_memory(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    if (usage.ru_maxrss > MEMORY_KIB) {
        fuzz_fail(__FILE__, __LINE__, "%ld KiB of memory used", usage.ru_maxrss);
    }
}

// --- files -------------------------------------------------------------------------------------

static uint8_t *read_input(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(FUZZ_INPUT_BYTES);
    if (file == NULL || bytes == NULL) {
        fuzz_fail(__FILE__, __LINE__, "cannot read %s", path);
    }
    *len = fread(bytes, 1, FUZZ_INPUT_BYTES, file);
    fclose(file);
    return bytes;
}

static void write_input(const char *path, const uint8_t *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, len, file) != len || fclose(file) != 0) {
        fuzz_fail(__FILE__, __LINE__, "cannot write %s", path);
    }
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

// Calls `use` with each file of the corpus, in the order of names; how many there are.
static size_t for_corpus(void (*use)(const uint8_t *bytes, size_t len))
{
    char folder[200], path[500];
    struct dirent **entries;
    snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", target->name);
    int count = scandir(folder, &entries, not_hidden, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        size_t len;
        uint8_t *bytes = read_input(path, &len);
        use(bytes, len);
        free(bytes);
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
    return count < 0 ? 0 : (size_t)count;
}

static void add_to_pool(const uint8_t *bytes, size_t len)
{
    fuzz_pool_add(bytes, len, 0);
}

static void open_target(void)
{
    target->open();
    for_corpus(add_to_pool);
}

static void close_target(void)
{
    target->close();
    fuzz_pool_free();
}

// --- the suite ---------------------------------------------------------------------------------

static void run_quietly(const uint8_t *bytes, size_t len)
{
    run_input(bytes, len);
}

static void test_the_corpus_keeps_every_promise(void **state)
{
    (void)state;
    print_message("%zu inputs\n", for_corpus(run_quietly));
}

static void test_mutants_keep_every_promise(void **state)
{
    (void)state;
    static uint8_t input[FUZZ_INPUT_BYTES];
    size_t outcomes[3] = {0};
    for (uint64_t number = 0; number < SUITE_MUTANTS; number++) {
        outcomes[run_input(input, make_mutant(input, 1, number))]++;
    }
    check_memory();
    print_message("%d mutants: %zu past the header, %zu accepted\n", SUITE_MUTANTS,
                  outcomes[FUZZ_ENTERED] + outcomes[FUZZ_ACCEPTED], outcomes[FUZZ_ACCEPTED]);
    assert_true(outcomes[FUZZ_ACCEPTED] > 0);
    assert_true(outcomes[FUZZ_ENTERED] + outcomes[FUZZ_ACCEPTED] > SUITE_MUTANTS / 8);
}

static int open_suite(void **state)
{
    (void)state;
    open_target();
    return 0;
}

static int close_suite(void **state)
{
    (void)state;
    close_target();
    return 0;
}

static int run_suite(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_corpus_keeps_every_promise),
        cmocka_unit_test(test_mutants_keep_every_promise),
    };
    return cmocka_run_group_tests_name(target->name, tests, open_suite, close_suite);
}

// --- the long run ------------------------------------------------------------------------------

static _Noreturn void run_child(struct progress *progress, uint64_t seed, uint64_t wanted)
{
    open_target();
    for (; progress->entered < wanted && progress->runs < MOST_PER_WANTED * wanted;
         progress->number++) {
        progress->len = make_mutant(progress->input, seed, progress->number);
        enum fuzz_outcome outcome = run_input(progress->input, progress->len);
        check_memory();
        progress->runs++;
        progress->entered += outcome != FUZZ_REFUSED;
        progress->accepted += outcome == FUZZ_ACCEPTED;
    }
    close_target();
    exit(0);
}

static void keep_finding(const struct progress *progress, uint64_t seed, int status)
{
    const char *folder = getenv("FUZZ_FINDINGS");
    char path[500];
    snprintf(path, sizeof path, "%s/%s-%llu-%llu", folder ? folder : ".", target->name,
             (unsigned long long)seed, (unsigned long long)progress->number);
    write_input(path, progress->input, progress->len);
    const char *how = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "took too long"
                      : WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
                                            : "failed";
    printf("%s: an input %s; again: build-asan/tests/fuzz/%s %s\n", target->name, how, target->name,
           path);
}

// False when the child ended before all were run.
static bool run_in_child(struct progress *progress, uint64_t seed, uint64_t wanted)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        run_child(progress, seed, wanted);
    }
    int status;
    FUZZ_CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (status == 0) {
        return true;
    }
    keep_finding(progress, seed, status);
    progress->number++;
    progress->runs++;
    return false;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int run_long(uint64_t wanted, uint64_t seed)
{
    struct progress *progress =
        mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    FUZZ_CHECK(progress != MAP_FAILED);
    double start = seconds();
    unsigned findings = 0;
    printf("%s: seed %llu\n", target->name, (unsigned long long)seed);
    while (findings < MOST_FINDINGS && !run_in_child(progress, seed, wanted)) {
        findings++;
    }
    double rate = (double)progress->runs / (seconds() - start);
    printf("%s: %llu mutants, %llu past the header, %llu accepted, %.0f a second, %u findings\n",
           target->name, (unsigned long long)progress->runs, (unsigned long long)progress->entered,
           (unsigned long long)progress->accepted, rate, findings);
    bool enough = progress->entered >= wanted;
    munmap(progress, sizeof *progress);
    return findings > 0 || !enough;
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? strtoull(text, NULL, 10) : otherwise;
}

int fuzz_main(int argc, char **argv, const struct fuzz_target *wanted)
{
    target = wanted;
    uint64_t rounds = number_of("FUZZ_ROUNDS", 0);
    if (argc == 1) {
        return rounds > 0 ? run_long(rounds, number_of("FUZZ_SEED", 1)) : run_suite();
    }
    open_target();
    for (int i = 1; i < argc; i++) {
        size_t len;
        uint8_t *bytes = read_input(argv[i], &len);
        static const char *const names[] = {"refused", "past the header", "accepted"};
        printf("%s: %s\n", argv[i], names[run_input(bytes, len)]);
        check_memory();
        free(bytes);
    }
    close_target();
    return 0;
}

// --- libFuzzer ---------------------------------------------------------------------------------

static void open_once(const struct fuzz_target *wanted)
{
    if (target == NULL) {
        target = wanted;
        target->open();
    }
}

int fuzz_libfuzzer(const uint8_t *bytes, size_t len, const struct fuzz_target *wanted)
{
    open_once(wanted);
    if (len <= FUZZ_INPUT_BYTES) {
        run_input(bytes, len);
    }
    return 0;
}

// One of our mutants now and then, which brings the seeds in; else libFuzzer's own, repaired.
size_t fuzz_libfuzzer_mutate(uint8_t *bytes, size_t len, size_t most, uint64_t seed,
                             const struct fuzz_target *wanted, fuzz_mutator *mutator)
{
    static uint8_t input[FUZZ_INPUT_BYTES];
    open_once(wanted);
    uint64_t random = seed;
    size_t made;
    if (len <= 1 || len > sizeof input || fuzz_below(&random, 8) == 0) {
        made = make_mutant(input, 0, seed);
    } else {
        memcpy(input, bytes, len);
        made = mutator(input, len, most < sizeof input ? most : sizeof input);
        made = target->repair != NULL ? target->repair(input, made, &random) : made;
    }
    made = made < most ? made : most;
    memcpy(bytes, input, made);
    return made;
}
