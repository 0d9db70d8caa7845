// The file seam: whatever fails, an older file stays as it was and nothing is left beside it.
#include "formats/file.h"
#include "tests/support/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch scratch;
static char path[400];

static int setup(void **state)
{
    (void)state;
    scratch_make(&scratch);
    snprintf(path, sizeof path, "%s/file", scratch.path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    file_fault = NULL;
    scratch_remove(&scratch);
    return 0;
}

static unsigned entries_of(const char *directory)
{
    DIR *entries = opendir(directory);
    assert_non_null(entries);
    unsigned count = 0;
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count - 2;
}

static void expect_content(const char *file, const char *text)
{
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(file, 1 << 20, &bytes, &len, NULL), STATUS_OK);
    assert_int_equal(len, strlen(text));
    assert_string_equal((char *)bytes, text);
    free(bytes);
}

static enum status write_text(const char *file, const char *text, struct error *error)
{
    return file_write_durably(file, text, strlen(text), error);
}

// --- replacing ---------------------------------------------------------------------------------

static void file_appears_when_committed(void **state)
{
    (void)state;
    struct file_replace file;
    assert_int_equal(write_text(path, "old", NULL), STATUS_OK);
    assert_int_equal(file_replace_open(&file, path, NULL), STATUS_OK);
    assert_int_equal(file_replace_write(&file, "ne", 2, NULL), STATUS_OK);
    expect_content(path, "old");
    assert_int_equal(file_replace_write(&file, "w", 1, NULL), STATUS_OK);
    assert_int_equal(file_replace_commit(&file, NULL), STATUS_OK);
    expect_content(path, "new");
    file_replace_abort(&file);
    expect_content(path, "new");
    assert_int_equal(entries_of(scratch.path), 1);
}

static void abort_leaves_the_old_file_alone(void **state)
{
    (void)state;
    struct file_replace file;
    assert_int_equal(write_text(path, "old", NULL), STATUS_OK);
    assert_int_equal(file_replace_open(&file, path, NULL), STATUS_OK);
    assert_int_equal(file_replace_write(&file, "new", 3, NULL), STATUS_OK);
    file_replace_abort(&file);
    file_replace_abort(&file);
    expect_content(path, "old");
    assert_int_equal(entries_of(scratch.path), 1);
}

static unsigned calls, failing_call;
static int failing_errno;
static char failed_call[16];

static int fail_the_nth(const char *call, const char *file)
{
    (void)file;
    if (++calls != failing_call) {
        return 0;
    }
    snprintf(failed_call, sizeof failed_call, "%s", call);
    return failing_errno;
}

static void each_failing_call_leaves_the_old_file_alone(void **state)
{
    (void)state;
    static const char *const order[] = {"open", "write", "fsync", "close", "rename", "fsyncdir"};
    static const struct {
        int errnum;
        enum status status;
    } failures[] = {{ENOSPC, STATUS_NO_SPACE},
                    {EDQUOT, STATUS_NO_SPACE},
                    {EFBIG, STATUS_NO_SPACE},
                    {EIO, STATUS_IO},
                    {EACCES, STATUS_DENIED}};
    for (size_t f = 0; f < sizeof failures / sizeof *failures; f++) {
        for (unsigned i = 0; i < 6; i++) {
            assert_int_equal(write_text(path, "old", NULL), STATUS_OK);
            calls = 0;
            failing_call = i + 1;
            failing_errno = failures[f].errnum;
            file_fault = fail_the_nth;
            struct error error = {0};
            enum status status = write_text(path, "new", &error);
            file_fault = NULL;
            assert_string_equal(failed_call, order[i]);
            assert_int_equal(status, failures[f].status);
            assert_non_null(
                strstr(error.path, scratch.path)); // the file, its temporary or the directory
            assert_non_null(strstr(error.reason, "cannot"));
            // After the rename only the directory's sync is left: the file is whole and new.
            expect_content(path, i == 5 ? "new" : "old");
            assert_int_equal(entries_of(scratch.path), 1);
            assert_int_equal(write_text(path, "newer", NULL), STATUS_OK);
        }
    }
}

// A pipe takes as much as fits; what it holds is taken out before each write.
static int pipe_ends[2];
static uint8_t taken[300000];
static size_t taken_len;

static int take_from_pipe(const char *call, const char *file)
{
    (void)call, (void)file;
    ssize_t got = read(pipe_ends[0], taken + taken_len, sizeof taken - taken_len);
    taken_len += got > 0 ? (size_t)got : 0;
    return 0;
}

static void short_writes_of_two_pieces_go_on(void **state)
{
    (void)state;
    static uint8_t bytes[250000];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * i >> 7);
    }
    static const size_t cuts[] = {0, 1, 4096, 65535, 65536, 65537, 200000, sizeof bytes};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        assert_int_equal(pipe2(pipe_ends, O_NONBLOCK), 0);
        taken_len = 0;
        file_fault = take_from_pipe;
        assert_int_equal(file_write_both(pipe_ends[1], "pipe", bytes, cuts[i], bytes + cuts[i],
                                         sizeof bytes - cuts[i], NULL),
                         STATUS_OK);
        take_from_pipe(NULL, NULL);
        file_fault = NULL;
        assert_int_equal(taken_len, sizeof bytes);
        assert_memory_equal(taken, bytes, sizeof bytes);
        close(pipe_ends[0]);
        close(pipe_ends[1]);
    }
}

static int write_calls;

static int interrupt_twice(const char *call, const char *file)
{
    (void)file;
    return strcmp(call, "write") == 0 && write_calls++ < 2 ? EINTR : 0;
}

static void interrupted_writes_go_on(void **state)
{
    (void)state;
    write_calls = 0;
    file_fault = interrupt_twice;
    assert_int_equal(write_text(path, "text", NULL), STATUS_OK);
    assert_int_equal(write_calls, 3);
    expect_content(path, "text");
}

// A container gives the same process number again and again, so this does happen.
static void remains_of_a_killed_writer_are_no_obstacle(void **state)
{
    (void)state;
    char stale[450];
    snprintf(stale, sizeof stale, "%s.tmp-%ld", path, (long)getpid());
    assert_int_equal(write_text(stale, "half", NULL), STATUS_OK);
    assert_int_equal(write_text(path, "new", NULL), STATUS_OK);
    expect_content(path, "new");
    assert_int_equal(entries_of(scratch.path), 1);
}

static void links_at_the_target_are_replaced_not_followed(void **state)
{
    (void)state;
    char victim[450], stale[450];
    snprintf(victim, sizeof victim, "%s/victim", scratch.path);
    snprintf(stale, sizeof stale, "%s.tmp-%ld", path, (long)getpid());
    assert_int_equal(write_text(victim, "precious", NULL), STATUS_OK);
    assert_int_equal(symlink(victim, path), 0);
    assert_int_equal(symlink(victim, stale), 0);
    assert_int_equal(write_text(path, "new", NULL), STATUS_OK);
    expect_content(victim, "precious");
    expect_content(path, "new");
    struct stat about;
    assert_int_equal(lstat(path, &about), 0);
    assert_true(S_ISREG(about.st_mode));
}

static void modes_follow_the_umask_and_nothing_is_writable_by_all(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 022, 077};
    static const mode_t modes[] = {0644, 0644, 0600};
    for (int i = 0; i < 3; i++) {
        mode_t before = umask(masks[i]);
        enum status status = write_text(path, "text", NULL);
        umask(before);
        assert_int_equal(status, STATUS_OK);
        struct stat about;
        assert_int_equal(stat(path, &about), 0);
        assert_int_equal(about.st_mode & 0777, modes[i]);
    }
}

static void killed_at_any_moment_either_file_is_whole(void **state)
{
    (void)state;
    enum { LENGTH = 300000 };
    static char old_text[LENGTH + 1], new_text[LENGTH + 1];
    memset(old_text, 'o', LENGTH);
    memset(new_text, 'n', LENGTH);
    assert_int_equal(write_text(path, old_text, NULL), STATUS_OK);
    unsigned kept = 0, replaced = 0;
    for (unsigned i = 0; i < 60; i++) {
        pid_t child = fork();
        if (child == 0) {
            for (unsigned round = 0;; round++) {
                write_text(path, round % 2 ? old_text : new_text, NULL);
            }
        }
        usleep(300 + 211 * i);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        uint8_t *bytes;
        size_t len;
        assert_int_equal(file_read_all(path, 1 << 20, &bytes, &len, NULL), STATUS_OK);
        assert_int_equal(len, LENGTH);
        const char *want = bytes[0] == 'o' ? old_text : new_text;
        assert_memory_equal(bytes, want, LENGTH);
        kept += bytes[0] == 'o';
        replaced += bytes[0] == 'n';
        free(bytes);
    }
    assert_int_equal(kept + replaced, 60);
}

static int die_at_the_nth(const char *call, const char *file)
{
    (void)call, (void)file;
    return ++calls == failing_call ? kill(getpid(), SIGKILL) : 0;
}

static void killed_before_each_call_the_next_writer_succeeds(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 6; i++) {
        assert_int_equal(write_text(path, "old", NULL), STATUS_OK);
        pid_t child = fork();
        if (child == 0) {
            calls = 0;
            failing_call = i;
            file_fault = die_at_the_nth;
            write_text(path, "new", NULL);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        expect_content(path, i == 6 ? "new" : "old");
        assert_int_equal(write_text(path, "newer", NULL), STATUS_OK);
        expect_content(path, "newer");
    }
}

// --- full disks --------------------------------------------------------------------------------

static void full_disk_leaves_the_old_file_alone(void **state)
{
    (void)state;
    if (mount("tmpfs", scratch.path, "tmpfs", 0, "size=256k") != 0) {
        printf("skipped: mounting a small tmpfs needs root (%s)\n", strerror(errno));
        skip();
    }
    static uint8_t big[1 << 20];
    struct error error;
    enum status status = write_text(path, "old", &error);
    if (status == STATUS_OK) {
        status = file_write_durably(path, big, sizeof big, &error);
        expect_content(path, "old");
    }
    unsigned entries = entries_of(scratch.path);
    umount2(scratch.path, MNT_DETACH);
    assert_int_equal(status, STATUS_NO_SPACE);
    assert_non_null(strstr(error.reason, "No space"));
    assert_int_equal(entries, 1);
}

static void limit_on_file_size_leaves_the_old_file_alone(void **state)
{
    (void)state;
    static uint8_t big[1 << 20];
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(write_text(path, "old", NULL), STATUS_OK);
    struct error error;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum status status = file_write_durably(path, big, sizeof big, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, STATUS_NO_SPACE);
    assert_int_equal(error.offset, 100000);
    expect_content(path, "old");
    assert_int_equal(entries_of(scratch.path), 1);
}

// --- reading -----------------------------------------------------------------------------------

static void whole_files_are_read_up_to_the_limit(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t len;
    assert_int_equal(write_text(path, "12345", NULL), STATUS_OK);
    assert_int_equal(file_read_all(path, 5, &bytes, &len, NULL), STATUS_OK);
    assert_int_equal(len, 5);
    assert_int_equal(bytes[5], 0);
    free(bytes);
    assert_int_equal(file_read_all(path, 4, &bytes, &len, NULL), STATUS_LIMIT);
    assert_null(bytes);
    assert_int_equal(write_text(path, "", NULL), STATUS_OK);
    assert_int_equal(file_read_all(path, 5, &bytes, &len, NULL), STATUS_OK);
    assert_int_equal(len, 0);
    free(bytes);
}

static void what_is_no_file_is_refused_at_once(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t len;
    struct error error;
    assert_int_equal(file_read_all(path, 5, &bytes, &len, &error), STATUS_NOT_FOUND);
    assert_string_equal(error.path, path);
    assert_int_equal(file_read_all(scratch.path, 5, &bytes, &len, &error), STATUS_INVALID);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(file_read_all(path, 5, &bytes, &len, &error), STATUS_INVALID);
}

static void early_end_names_its_offset(void **state)
{
    (void)state;
    char buf[8];
    struct error error;
    assert_int_equal(write_text(path, "12345", NULL), STATUS_OK);
    int fd = open(path, O_RDONLY);
    assert_int_equal(file_read_at(fd, path, buf, 3, 2, &error), STATUS_OK);
    assert_memory_equal(buf, "345", 3);
    assert_int_equal(file_read_at(fd, path, buf, 4, 2, &error), STATUS_TRUNCATED);
    assert_int_equal(error.offset, 5);
    close(fd);
    assert_int_equal(file_read_at(fd, path, buf, 4, 2, &error), STATUS_IO);
}

// --- directories -------------------------------------------------------------------------------

static void directories_are_made_with_their_parents(void **state)
{
    (void)state;
    char deep[450];
    snprintf(deep, sizeof deep, "%s/a/b//c/", scratch.path);
    assert_int_equal(file_make_directories(deep, NULL), STATUS_OK);
    assert_true(file_exists(deep));
    assert_int_equal(file_make_directories(deep, NULL), STATUS_OK);
    assert_int_equal(file_make_directories("/", NULL), STATUS_OK);
    assert_int_equal(write_text(path, "text", NULL), STATUS_OK);
    snprintf(deep, sizeof deep, "%s/below", path);
    struct error error;
    assert_int_not_equal(file_make_directories(deep, &error), STATUS_OK);
    assert_string_equal(error.path, path);
    assert_int_not_equal(file_make_directories("", NULL), STATUS_OK);
    char endless[1000];
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = '\0';
    assert_int_equal(file_make_directories(endless, NULL), STATUS_LIMIT);
    assert_int_equal(write_text(endless, "text", NULL), STATUS_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(file_appears_when_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(abort_leaves_the_old_file_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(each_failing_call_leaves_the_old_file_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(interrupted_writes_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(short_writes_of_two_pieces_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(remains_of_a_killed_writer_are_no_obstacle, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(links_at_the_target_are_replaced_not_followed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(modes_follow_the_umask_and_nothing_is_writable_by_all,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(killed_at_any_moment_either_file_is_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(killed_before_each_call_the_next_writer_succeeds, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(full_disk_leaves_the_old_file_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(limit_on_file_size_leaves_the_old_file_alone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(whole_files_are_read_up_to_the_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_refused_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(early_end_names_its_offset, setup, teardown),
        cmocka_unit_test_setup_teardown(directories_are_made_with_their_parents, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
