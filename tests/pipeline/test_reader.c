// Both ways of reading give exactly the file's bytes at any offset, report a file's end, hide what
// the system may do to a read, and stop cleanly with reads in flight.
#include "pipeline/reader.h"
#include "tests/support/faulty_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILES = 3, FILE_BYTES = 300007, DEPTH = 64, BUFFER = 5000 };

static int fds[FILES];
static uint8_t content[FILES][FILE_BYTES];
static uint8_t memory[DEPTH * BUFFER];

static uint64_t random_state = 7;

static uint32_t draw(uint32_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 33) % below;
}

static int make_files(void **state)
{
    (void)state;
    for (int file = 0; file < FILES; file++) {
        char path[] = "/tmp/byol-reader-XXXXXX";
        fds[file] = mkstemp(path);
        assert_true(fds[file] >= 0);
        unlink(path);
        for (size_t i = 0; i < FILE_BYTES; i++) {
            content[file][i] = (uint8_t)draw(256);
        }
        assert_int_equal(write(fds[file], content[file], FILE_BYTES), FILE_BYTES);
    }
    return 0;
}

static int close_files(void **state)
{
    (void)state;
    for (int file = 0; file < FILES; file++) {
        close(fds[file]);
    }
    return 0;
}

// Opens a reader, or skips the test where the machine has no such one.
static void open_or_skip(struct reader *reader, enum loader_io io, uint32_t depth)
{
    const struct reader_setup setup = {
        .fds = fds, .files = FILES, .memory = memory, .bytes = sizeof memory, .depth = depth};
    struct error error;
    enum status status = reader_open(reader, &setup, io, &error);
    if (status == STATUS_UNSUPPORTED) {
        printf("skipped: %s\n", error.reason);
        skip();
    }
    assert_int_equal(status, STATUS_OK);
    assert_int_equal(reader->used, io);
}

static void aim(struct read_request *request, uint32_t buffer, uint32_t len)
{
    *request = (struct read_request){.file = draw(FILES),
                                     .len = len,
                                     .offset = draw(FILE_BYTES - len + 1),
                                     .buf = memory + (size_t)buffer * BUFFER};
    memset(request->buf, 0, BUFFER);
}

static void assert_arrived(const struct read_request *request)
{
    assert_int_equal(request->errnum, 0);
    assert_int_equal(request->done, request->len);
    assert_memory_equal(request->buf, content[request->file] + request->offset, request->len);
}

// Keeps `depth` random reads in flight until `total` are done, checking each.
static void read_many(struct reader *reader, uint32_t depth, unsigned total)
{
    struct read_request requests[DEPTH], *finished[DEPTH];
    unsigned begun = 0, done = 0;
    for (uint32_t i = 0; i < depth; i++, begun++) {
        aim(&requests[i], i, 1 + draw(BUFFER));
        reader_submit(reader, &requests[i]);
    }
    while (done < total) {
        size_t count;
        assert_int_equal(reader_wait(reader, finished, DEPTH, &count, NULL), STATUS_OK);
        for (size_t i = 0; i < count; i++) {
            assert_arrived(finished[i]);
            done++;
            if (begun < total) {
                begun++;
                aim(finished[i], (uint32_t)(finished[i] - requests), 1 + draw(BUFFER));
                reader_submit(reader, finished[i]);
            }
        }
    }
    assert_int_equal(done, begun);
}

static void read_at_depth(enum loader_io io, uint32_t depth)
{
    struct reader reader;
    open_or_skip(&reader, io, depth);
    read_many(&reader, depth, 2000);
    reader_drain(&reader);
    reader_close(&reader);
}

static void test_uring_reads_what_is_there(void **state)
{
    (void)state;
    read_at_depth(LOADER_IO_URING, 1);
    read_at_depth(LOADER_IO_URING, 5);
    read_at_depth(LOADER_IO_URING, DEPTH);
}

static void test_pread_reads_what_is_there(void **state)
{
    (void)state;
    read_at_depth(LOADER_IO_PREAD, 1);
    read_at_depth(LOADER_IO_PREAD, 5);
    read_at_depth(LOADER_IO_PREAD, DEPTH);
}

static struct read_request read_one(struct reader *reader, uint32_t file, uint64_t offset,
                                    uint32_t len)
{
    struct read_request request = {.file = file, .len = len, .offset = offset, .buf = memory};
    struct read_request *finished;
    size_t count = 0;
    reader_submit(reader, &request);
    while (count == 0) {
        assert_int_equal(reader_wait(reader, &finished, 1, &count, NULL), STATUS_OK);
    }
    assert_ptr_equal(finished, &request);
    return request;
}

static void check_the_end(enum loader_io io)
{
    struct reader reader;
    open_or_skip(&reader, io, 4);
    struct read_request cut = read_one(&reader, 1, FILE_BYTES - 10, 25);
    assert_int_equal(cut.errnum, 0);
    assert_int_equal(cut.done, 10);
    assert_memory_equal(memory, content[1] + FILE_BYTES - 10, 10);
    struct read_request beyond = read_one(&reader, 1, FILE_BYTES + 100, 25);
    assert_int_equal(beyond.errnum, 0);
    assert_int_equal(beyond.done, 0);
    struct read_request nothing = read_one(&reader, 1, 5, 0);
    assert_int_equal(nothing.errnum, 0);
    assert_int_equal(nothing.done, 0);
    reader_drain(&reader);
    reader_close(&reader);
}

static void test_uring_tells_the_end_of_a_file(void **state)
{
    (void)state;
    check_the_end(LOADER_IO_URING);
}

static void test_pread_tells_the_end_of_a_file(void **state)
{
    (void)state;
    check_the_end(LOADER_IO_PREAD);
}

static void check_faults(enum loader_io io)
{
    static const struct faulty_reader_plan kinds[] = {
        {.eio = 100},   {.eagain = 50},
        {.eintr = 300}, {.shortened = 500},
        {.late = 500},  {.eio = 30, .eagain = 10, .eintr = 100, .shortened = 300, .late = 300},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct faulty_reader_plan plan = kinds[i];
        plan.seed = i;
        faulty_reader_install(&plan);
        struct reader reader;
        open_or_skip(&reader, io, 16);
        read_many(&reader, 16, 400);
        assert_true(faulty_reader_faults() > 5);
        reader_drain(&reader);
        reader_close(&reader);
    }
}

static int remove_faults(void **state)
{
    (void)state;
    faulty_reader_remove();
    return 0;
}

static void test_uring_hides_passing_faults(void **state)
{
    (void)state;
    check_faults(LOADER_IO_URING);
}

static void test_pread_hides_passing_faults(void **state)
{
    (void)state;
    check_faults(LOADER_IO_PREAD);
}

static void check_lasting_fault(enum loader_io io, int errnum, uint32_t retries)
{
    const struct faulty_reader_plan plan = {
        .bad_file = 2, .bad_offset = 1000, .bad_errnum = errnum};
    faulty_reader_install(&plan);
    struct reader reader;
    open_or_skip(&reader, io, 4);
    struct read_request bad = read_one(&reader, 2, 990, 20);
    assert_int_equal(bad.errnum, errnum);
    assert_int_equal(bad.retries, retries);
    struct read_request good = read_one(&reader, 2, 1001, 20);
    assert_arrived(&good);
    reader_drain(&reader);
    reader_close(&reader);
}

static void test_a_lasting_error_is_retried_twice_and_then_told(void **state)
{
    (void)state;
    check_lasting_fault(LOADER_IO_PREAD, EIO, 2);
    check_lasting_fault(LOADER_IO_PREAD, ENODEV, 0);
    check_lasting_fault(LOADER_IO_URING, EIO, 2);
}

// Found by mixtures of faults: signals used up the tries of a disk error.
static void test_interruptions_do_not_use_up_the_retries_of_eio(void **state)
{
    (void)state;
    const struct faulty_reader_plan plan = {.script = {EINTR, EAGAIN, EINTR, EIO, EINTR, EIO}};
    faulty_reader_install(&plan);
    struct reader reader;
    open_or_skip(&reader, LOADER_IO_PREAD, 4);
    struct read_request request = read_one(&reader, 1, 77, 2000);
    assert_arrived(&request);
    reader_drain(&reader);
    reader_close(&reader);
}

static void *wake_soon(void *reader)
{
    usleep(20000);
    reader_wake(reader);
    return NULL;
}

static void check_wake(enum loader_io io)
{
    struct reader reader;
    open_or_skip(&reader, io, 4);
    pthread_t thread;
    struct read_request *finished[4];
    for (int round = 0; round < 3; round++) {
        pthread_create(&thread, NULL, wake_soon, &reader);
        size_t count = 99;
        assert_int_equal(reader_wait(&reader, finished, 4, &count, NULL), STATUS_OK);
        assert_int_equal(count, 0);
        pthread_join(thread, NULL);
    }
    reader_wake(&reader); // before the wait: still seen
    size_t count = 99;
    assert_int_equal(reader_wait(&reader, finished, 4, &count, NULL), STATUS_OK);
    assert_int_equal(count, 0);
    reader_drain(&reader);
    reader_close(&reader);
}

static void test_wake_ends_a_wait(void **state)
{
    (void)state;
    check_wake(LOADER_IO_PREAD);
    check_wake(LOADER_IO_URING);
}

// A pipe that nobody writes to: the read would last for ever.
static void test_uring_drains_a_read_that_never_ends(void **state)
{
    (void)state;
    struct reader reader;
    open_or_skip(&reader, LOADER_IO_URING, 4);
    reader_close(&reader);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    int saved = fds[0];
    fds[0] = ends[0];
    open_or_skip(&reader, LOADER_IO_URING, 4);
    struct read_request stuck = {.file = 0, .len = 100, .offset = 0, .buf = memory};
    struct read_request *finished[4];
    size_t count = 0;
    reader_submit(&reader, &stuck);
    reader_wake(&reader);
    assert_int_equal(reader_wait(&reader, finished, 4, &count, NULL), STATUS_OK);
    assert_int_equal(count, 0);
    alarm(20); // a hang kills the test
    reader_drain(&reader);
    reader_close(&reader);
    alarm(0);
    fds[0] = saved;
    close(ends[0]);
    close(ends[1]);
}

static void check_drain(enum loader_io io)
{
    for (unsigned round = 0; round < 100; round++) {
        struct read_request requests[DEPTH], *finished[DEPTH];
        struct reader reader;
        open_or_skip(&reader, io, DEPTH);
        for (uint32_t i = 0; i < DEPTH; i++) {
            aim(&requests[i], i, BUFFER);
            reader_submit(&reader, &requests[i]);
        }
        size_t count;
        if (round % 2) {
            assert_int_equal(reader_wait(&reader, finished, 1, &count, NULL), STATUS_OK);
        }
        reader_drain(&reader);
        reader_close(&reader);
        memset(memory, 0xee, sizeof memory); // nobody may write here any more
        if (round % 10 == 0) {
            usleep(1000);
        }
        for (size_t i = 0; i < sizeof memory; i += 97) {
            assert_int_equal(memory[i], 0xee);
        }
    }
}

static void test_after_drain_no_buffer_is_touched(void **state)
{
    (void)state;
    check_drain(LOADER_IO_PREAD);
    check_drain(LOADER_IO_URING);
}

static void test_auto_takes_what_there_is(void **state)
{
    (void)state;
    const struct reader_setup setup = {
        .fds = fds, .files = FILES, .memory = memory, .bytes = sizeof memory, .depth = 4};
    struct reader reader;
    assert_int_equal(reader_open(&reader, &setup, LOADER_IO_AUTO, NULL), STATUS_OK);
    assert_true(reader.used == LOADER_IO_URING || reader.used == LOADER_IO_PREAD);
    read_many(&reader, 4, 100);
    reader_drain(&reader);
    reader_close(&reader);
}

// From now on the system call fails with EPERM in this process; with `second` (unless -1), only
// when its second argument is at most that.
static void forbid(uint32_t call, int second)
{
    const uint32_t high = second < 0 ? UINT32_MAX : (uint32_t)second;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, high, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        _exit(77);
    }
}

// Runs `body` in a process of its own; skips the test when that process cannot be confined.
static void in_child(void (*body)(void))
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(20);
        body();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        printf("skipped: this system does not let a process forbid itself system calls\n");
        skip();
    }
    assert_int_equal(status, 0);
}

// No cmocka in the child: a failed check is an exit code.
static void check(bool held, int code)
{
    if (!held) {
        _exit(code);
    }
}

static void read_something(struct reader *reader)
{
    struct read_request request = {.file = 1, .len = 4000, .offset = 123, .buf = memory};
    struct read_request *finished;
    size_t count = 0;
    reader_submit(reader, &request);
    while (count == 0) {
        check(reader_wait(reader, &finished, 1, &count, NULL) == STATUS_OK, 3);
    }
    check(request.done == 4000 && memcmp(memory, content[1] + 123, 4000) == 0, 4);
    reader_drain(reader);
    reader_close(reader);
}

static void without_uring(void)
{
    const struct reader_setup setup = {
        .fds = fds, .files = FILES, .memory = memory, .bytes = sizeof memory, .depth = 4};
    struct reader reader;
    struct error error;
    forbid(SYS_io_uring_setup, -1);
    check(reader_open(&reader, &setup, LOADER_IO_URING, &error) == STATUS_UNSUPPORTED, 1);
    check(reader_open(&reader, &setup, LOADER_IO_AUTO, NULL) == STATUS_OK, 2);
    check(reader.used == LOADER_IO_PREAD, 5);
    read_something(&reader);
}

static void test_a_kernel_that_forbids_uring_gets_pread(void **state)
{
    (void)state;
    in_child(without_uring);
}

// Registering buffers (0) and files (2) is refused, as under a small RLIMIT_MEMLOCK.
static void without_registration(void)
{
    const struct reader_setup setup = {
        .fds = fds, .files = FILES, .memory = memory, .bytes = sizeof memory, .depth = 4};
    struct reader reader;
    forbid(SYS_io_uring_register, 2);
    check(reader_open(&reader, &setup, LOADER_IO_URING, NULL) == STATUS_OK, 1);
    read_something(&reader);
}

static void test_uring_works_without_registration(void **state)
{
    (void)state;
    struct reader reader;
    open_or_skip(&reader, LOADER_IO_URING, 4);
    reader_drain(&reader);
    reader_close(&reader);
    in_child(without_registration);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uring_reads_what_is_there),
        cmocka_unit_test(test_pread_reads_what_is_there),
        cmocka_unit_test(test_uring_tells_the_end_of_a_file),
        cmocka_unit_test(test_pread_tells_the_end_of_a_file),
        cmocka_unit_test_teardown(test_uring_hides_passing_faults, remove_faults),
        cmocka_unit_test_teardown(test_pread_hides_passing_faults, remove_faults),
        cmocka_unit_test_teardown(test_a_lasting_error_is_retried_twice_and_then_told,
                                  remove_faults),
        cmocka_unit_test_teardown(test_interruptions_do_not_use_up_the_retries_of_eio,
                                  remove_faults),
        cmocka_unit_test(test_wake_ends_a_wait),
        cmocka_unit_test(test_uring_drains_a_read_that_never_ends),
        cmocka_unit_test(test_after_drain_no_buffer_is_touched),
        cmocka_unit_test(test_auto_takes_what_there_is),
        cmocka_unit_test(test_a_kernel_that_forbids_uring_gets_pread),
        cmocka_unit_test(test_uring_works_without_registration),
    };
    return cmocka_run_group_tests(tests, make_files, close_files);
}
