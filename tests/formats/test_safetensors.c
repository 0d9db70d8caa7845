// .safetensors: what is written reads back, every damage is noticed, every rule is kept, and
// Python's package opens our files.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/file.h"
#include "formats/safetensors.h"
#include "formats/safetensors_layout.h"
#include "tests/support/mutate.h"

static char directory[256];
static char path[300];

static float weights[2][3] = {{1.5f, -2.25f, 0}, {1e-30f, 3e30f, -0.0f}};
static int64_t counter = -5;
static uint8_t odd_bytes[5] = {1, 2, 3, 254, 255};
static float bias[4] = {4, 3, 2, 1};

static const struct tensor samples[] = {
    {"online/linear/w", TENSOR_FLOAT32, 2, {2, 3}, sizeof weights, weights},
    {"flags", TENSOR_UINT8, 1, {5}, sizeof odd_bytes, odd_bytes},
    {"online/linear/b", TENSOR_FLOAT32, 1, {4}, sizeof bias, bias}, // not aligned in the file
    {"empty", TENSOR_FLOAT32, 2, {0, 7}, 0, NULL},
    {"step", TENSOR_INT64, 0, {0}, sizeof counter, &counter},
};
#define SAMPLES (sizeof samples / sizeof *samples)

static const struct tensor_metadata facts[] = {
    {"format", "byol"}, {"config", "batch: 256\nname: \"größe\"\n"}, {"empty", ""}};
#define FACTS (sizeof facts / sizeof *facts)

static void write_samples(void)
{
    assert_int_equal(safetensors_write(path, samples, SAMPLES, facts, FACTS, NULL), STATUS_OK);
}

static uint8_t *read_bytes(size_t *len)
{
    uint8_t *bytes;
    assert_int_equal(file_read_all(path, 1 << 20, &bytes, len, NULL), STATUS_OK);
    return bytes;
}

static void write_bytes(const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void test_what_is_written_reads_back(void **state)
{
    (void)state;
    write_samples();
    struct safetensors *file;
    struct error error;
    assert_int_equal(safetensors_open(&file, path, &error), STATUS_OK);
    assert_true(safetensors_verified(file));
    assert_int_equal(safetensors_count(file), SAMPLES);
    for (size_t i = 0; i < SAMPLES; i++) {
        const struct tensor *tensor = safetensors_at(file, i);
        const struct tensor *found = safetensors_find(file, samples[i].name);
        assert_non_null(found);
        assert_string_equal(tensor->name, samples[i].name); // file order is the order given
        assert_ptr_equal(tensor, found);
        assert_int_equal(tensor->type, samples[i].type);
        assert_int_equal(tensor->dims, samples[i].dims);
        assert_memory_equal(tensor->shape, samples[i].shape, tensor->dims * sizeof *tensor->shape);
        assert_int_equal(tensor->bytes, samples[i].bytes);
        if (tensor->bytes > 0) {
            assert_memory_equal(tensor->data, samples[i].data, tensor->bytes);
            assert_int_equal((uintptr_t)tensor->data % (tensor->type == TENSOR_UINT8 ? 1 : 4), 0);
        }
    }
    for (size_t i = 0; i < FACTS; i++) {
        assert_string_equal(safetensors_metadata(file, facts[i].key), facts[i].value);
    }
    assert_null(safetensors_metadata(file, "missing"));
    assert_null(safetensors_find(file, "missing"));
    assert_null(safetensors_at(file, SAMPLES));
    safetensors_close(&file);
    assert_null(file);
    safetensors_close(&file);
}

static void test_the_same_tensors_give_the_same_bytes(void **state)
{
    (void)state;
    size_t first_len, second_len;
    write_samples();
    uint8_t *first = read_bytes(&first_len);
    write_samples();
    uint8_t *second = read_bytes(&second_len);
    assert_int_equal(first_len, second_len);
    assert_memory_equal(first, second, first_len);
    free(first);
    free(second);
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    write_samples();
    size_t len;
    uint8_t *bytes = read_bytes(&len);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        write_bytes(bytes, len);
        struct safetensors *file;
        struct error error = {0};
        enum status status = safetensors_open(&file, path, &error);
        if (status == STATUS_OK) {
            fail_msg("bit %zu of byte %zu flipped and nobody noticed", bit % 8, bit / 8);
        }
        assert_null(file);
        assert_in_range(status, STATUS_CORRUPT, STATUS_VERSION);
        assert_int_equal(error.status, status);
        assert_string_equal(error.path, path);
        assert_true(error.reason[0] != '\0');
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    print_message("%zu bits flipped, all noticed\n", 8 * len);
    free(bytes);
}

static void test_every_cut_is_noticed(void **state)
{
    (void)state;
    write_samples();
    size_t len;
    uint8_t *bytes = read_bytes(&len);
    for (size_t cut = 0; cut < len; cut++) {
        write_bytes(bytes, cut);
        struct safetensors *file;
        struct error error;
        assert_int_equal(safetensors_open(&file, path, &error), STATUS_TRUNCATED);
        assert_int_equal(error.offset, cut);
    }
    uint8_t *longer = calloc(1, len + 1);
    assert_non_null(longer);
    memcpy(longer, bytes, len);
    write_bytes(longer, len + 1);
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, path, NULL), STATUS_CORRUPT);
    free(longer);
    free(bytes);
}

// A file as another program would write it: no checksums.
static enum status open_foreign(const char *header, size_t data_len, bool *verified,
                                struct error *error)
{
    size_t len = strlen(header);
    char bytes[4096] = {(char)(len & 0xff), (char)(len >> 8)};
    assert_true(len + data_len + 9 <= sizeof bytes);
    snprintf(bytes + 8, sizeof bytes - 8, "%s", header);
    write_bytes(bytes, 8 + len + data_len);
    struct safetensors *file;
    enum status status = safetensors_open(&file, path, error);
    if (status == STATUS_OK) {
        *verified = safetensors_verified(file);
    }
    safetensors_close(&file);
    return status;
}

struct foreign {
    const char *header;
    size_t data_len;
    enum status status;
    const char *sentence;
};

#define F32(name, shape, begin, end)                                                               \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end "]}"

static const struct foreign foreigners[] = {
    {"{}", 0, STATUS_OK, ""},
    {"{}      ", 0, STATUS_OK, ""},
    {"{\"__metadata__\":{\"format\":\"pt\"}}", 0, STATUS_OK, ""},
    {"{" F32("a", "2,3", "0", "24") "}", 24, STATUS_OK, ""},
    {"{" F32("b", "1", "4", "8") "," F32("a", "1", "0", "4") "}", 8, STATUS_OK, ""},
    {"{" F32("a", "", "0", "4") "}", 4, STATUS_OK, ""},
    {"{" F32("a", "0,9223372036854775807", "0", "0") "}", 0, STATUS_OK, ""},
    {"", 0, STATUS_CORRUPT, "not JSON"},
    {" {}", 0, STATUS_CORRUPT, "not JSON"},
    {"[]", 0, STATUS_CORRUPT, "not JSON"},
    {"{} x", 0, STATUS_CORRUPT, "not JSON"},
    {"{\"a\":1}", 0, STATUS_CORRUPT, "not dtype, shape and data_offsets"},
    {"{\"__metadata__\":[]}", 0, STATUS_CORRUPT, "no table"},
    {"{\"__metadata__\":{\"a\":1}}", 0, STATUS_CORRUPT, "not a text"},
    {"{" F32("a", "1", "0", "4") "," F32("a", "1", "4", "8") "}", 8, STATUS_CORRUPT, "duplicate"},
    {"{" F32("a", "1", "0", "4") "," F32("b", "1", "8", "12") "}", 12, STATUS_CORRUPT, "a hole"},
    {"{" F32("a", "1", "4", "8") "}", 8, STATUS_CORRUPT, "a hole before the tensor 'a'"},
    {"{" F32("a", "2", "0", "8") "," F32("b", "1", "4", "8") "}", 8, STATUS_CORRUPT, "overlapping"},
    {"{" F32("a", "1", "0", "4") "}", 5, STATUS_CORRUPT, "after the last tensor"},
    {"{" F32("a", "1", "0", "4") "}", 3, STATUS_TRUNCATED, "ends before tensor 'a'"},
    {"{" F32("a", "1", "0", "5") "}", 5, STATUS_CORRUPT, "shape and length differ"},
    {"{" F32("a", "1", "4", "0") "}", 4, STATUS_CORRUPT, "bad offsets"},
    {"{" F32("a", "1", "-4", "0") "}", 4, STATUS_CORRUPT, "bad offsets"},
    {"{" F32("a", "1", "0", "4.0") "}", 4, STATUS_CORRUPT, "bad offsets"},
    {"{" F32("a", "-1", "0", "4") "}", 4, STATUS_CORRUPT, "bad shape"},
    {"{" F32("a", "4294967296,4294967296", "0", "0") "}", 0, STATUS_CORRUPT, "impossible shape"},
    {"{" F32("a", "9223372036854775807", "0", "4") "}", 4, STATUS_CORRUPT, "impossible shape"},
    {"{" F32("a", "1,1,1,1,1,1,1,1,1", "0", "4") "}", 4, STATUS_LIMIT, "9 dimensions"},
    {"{" F32("", "1", "0", "4") "}", 4, STATUS_UNSUPPORTED, "plain printable"},
    {"{" F32("\xc3\xb6", "1", "0", "4") "}", 4, STATUS_UNSUPPORTED, "plain printable"},
    {"{" F32("a\\\"b", "1", "0", "4") "}", 4, STATUS_UNSUPPORTED, "plain printable"},
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, STATUS_UNSUPPORTED,
     "dtype F16"},
    {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,4]}}", 4, STATUS_CORRUPT, "no dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, STATUS_CORRUPT,
     "no shape"},
    {"{\"__metadata__\":{\"crc32c:a\":\"00000000\"}," F32("a", "0", "0", "0") "}", 0,
     STATUS_CORRUPT, "the header has none"},
    {"{\"__metadata__\":{\"crc32c\":\"00000000\"}}", 0, STATUS_CORRUPT, "header's checksum"},
    {"{\"__metadata__\":{\"crc32c\" : \"00000000\"}}", 0, STATUS_CORRUPT, "header's checksum"},
    {"{\"__metadata__\":{\"crc32c\":\"0\"}}", 0, STATUS_CORRUPT, "header's checksum"},
};

static void test_foreign_files_and_broken_rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof foreigners / sizeof *foreigners; i++) {
        const struct foreign *foreign = &foreigners[i];
        struct error error = {0};
        bool verified = true;
        enum status status = open_foreign(foreign->header, foreign->data_len, &verified, &error);
        if (status != foreign->status || strstr(error.reason, foreign->sentence) == NULL) {
            fail_msg("%s gave %s, '%s'", foreign->header, status_name(status), error.reason);
        }
        if (status == STATUS_OK) {
            assert_false(verified);
        }
    }
}

static void test_the_header_has_a_limit(void **state)
{
    (void)state;
    static const struct {
        uint64_t claimed;
        enum status status;
    } cases[] = {
        {LIMIT_TENSOR_HEADER_BYTES + 1, STATUS_LIMIT},
        {UINT64_MAX, STATUS_LIMIT},
        {LIMIT_TENSOR_HEADER_BYTES, STATUS_TRUNCATED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_bytes(&cases[i].claimed, sizeof cases[i].claimed);
        struct safetensors *file;
        assert_int_equal(safetensors_open(&file, path, NULL), cases[i].status);
    }
    unlink(path);
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, path, NULL), STATUS_NOT_FOUND);
}

static void test_bad_requests_leave_the_old_file(void **state)
{
    (void)state;
    static char long_name[202];
    memset(long_name, 'n', 201);
    const struct tensor bad[] = {
        {"", TENSOR_UINT8, 1, {5}, 5, odd_bytes},
        {NULL, TENSOR_UINT8, 1, {5}, 5, odd_bytes},
        {"a\"b", TENSOR_UINT8, 1, {5}, 5, odd_bytes},
        {"a\nb", TENSOR_UINT8, 1, {5}, 5, odd_bytes},
        {"\xc3\xb6", TENSOR_UINT8, 1, {5}, 5, odd_bytes},
        {"__metadata__", TENSOR_UINT8, 1, {5}, 5, odd_bytes},
        {long_name, TENSOR_UINT8, 1, {5}, 5, odd_bytes},
        {"short", TENSOR_UINT8, 1, {5}, 4, odd_bytes},
        {"no-data", TENSOR_UINT8, 1, {5}, 5, NULL},
        {"type", (enum tensor_type)7, 1, {5}, 5, odd_bytes},
        {"dims", TENSOR_UINT8, 9, {5, 1, 1, 1, 1, 1, 1, 1}, 5, odd_bytes},
        {"big", TENSOR_FLOAT32, 2, {UINT64_C(1) << 32, UINT64_C(1) << 32}, 0, NULL},
        {"flags", TENSOR_UINT8, 1, {5}, 5, odd_bytes}, // a second one of this name
    };
    write_samples();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tensor both[] = {samples[1], bad[i]};
        struct error error = {0};
        assert_int_equal(safetensors_write(path, both, 2, NULL, 0, &error), STATUS_INVALID);
        assert_true(error.reason[0] != '\0');
    }
    const struct tensor_metadata bad_facts[] = {
        {"crc32c", "0"}, {"crc32c:flags", "0"}, {"x", "\xff"}, {"\xff", "x"}};
    for (size_t i = 0; i < sizeof bad_facts / sizeof *bad_facts; i++) {
        assert_int_equal(safetensors_write(path, samples, SAMPLES, &bad_facts[i], 1, NULL),
                         STATUS_INVALID);
    }
    assert_int_equal(safetensors_write(path, samples, 0, NULL, 0, NULL), STATUS_INVALID);
    struct safetensors *file;
    assert_int_equal(safetensors_open(&file, path, NULL), STATUS_OK);
    assert_int_equal(safetensors_count(file), SAMPLES);
    safetensors_close(&file);
}

static int calls_until_fault;
static int fault_errno;

static int fail_the_nth(const char *call, const char *where)
{
    (void)call;
    (void)where;
    return calls_until_fault-- == 0 ? fault_errno : 0;
}

// Each call that changes the disk fails in turn: the old file stays whole, no temporary remains.
static void test_every_failing_call_keeps_a_whole_file(void **state)
{
    (void)state;
    write_samples();
    int errnums[] = {ENOSPC, EIO};
    for (size_t e = 0; e < 2; e++) {
        enum status status = STATUS_IO;
        int nth = 0;
        for (; status != STATUS_OK; nth++) {
            assert_in_range(nth, 0, 100);
            calls_until_fault = nth;
            fault_errno = errnums[e];
            file_fault = fail_the_nth;
            status = safetensors_write(path, samples, nth % 2 ? 1 : SAMPLES, NULL, 0, NULL);
            file_fault = NULL;
            assert_true(status == STATUS_OK || status == (e ? STATUS_IO : STATUS_NO_SPACE));
            struct safetensors *file;
            assert_int_equal(safetensors_open(&file, path, NULL), STATUS_OK);
            assert_true(safetensors_verified(file));
            safetensors_close(&file);
            char temporary[400];
            snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
            assert_false(file_exists(temporary));
        }
        assert_true(nth > 5); // open, writes, sync, close, rename, directory
    }
}

// Found by fuzzing: a checksum that holds made every other fault of the header "no memory".
static void test_a_signed_header_that_is_no_json_is_damage(void **state)
{
    (void)state;
    char text[] = "........}\"crc32c\":\"00000000\"";
    size_t len = sizeof text - 1;
    memcpy(text, (const char[8]){(char)(len - 8)}, 8);
    const uint8_t *header = (const uint8_t *)text + 8;
    const uint8_t *digits = safetensors_crc_digits(header, len - 8);
    assert_non_null(digits);
    char crc[SAFETENSORS_CRC_DIGITS + 1];
    safetensors_format_crc(safetensors_header_crc((const uint8_t *)text, header, len - 8, digits),
                           crc);
    memcpy(text + (digits - (const uint8_t *)text), crc, SAFETENSORS_CRC_DIGITS);
    write_bytes(text, len);
    struct safetensors *file;
    struct error error;
    assert_int_equal(safetensors_open(&file, path, &error), STATUS_CORRUPT);
    assert_non_null(strstr(error.reason, "not JSON"));
}

static void test_mutants_never_pass(void **state)
{
    (void)state;
    write_samples();
    size_t len;
    uint8_t *bytes = read_bytes(&len);
    uint64_t seed = 3;
    for (size_t i = 0; i < 5000; i++) {
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(bytes, len, i % 2 ? 8 : 0, &seed, &mutant_len);
        bool same = mutant_len == len && memcmp(mutant, bytes, len) == 0;
        write_bytes(mutant, mutant_len);
        free(mutant);
        struct safetensors *file;
        enum status status = safetensors_open(&file, path, NULL);
        assert_true(same ? status == STATUS_OK : status != STATUS_OK);
        safetensors_close(&file);
    }
    free(bytes);
}

// Without checksums in front, the parser itself meets the damage.
static void test_mutants_of_foreign_files(void **state)
{
    (void)state;
    static const char header[] =
        "{" F32("abc", "2,3", "0",
                "24") ",\"__metadata__\":{\"k\":\"v\"},"
                      "\"def\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[24,27]},"
                      "\"ghi\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[27,35]}}";
    uint64_t seed = 4;
    size_t accepted = 0;
    for (size_t i = 0; i < 10000; i++) {
        size_t len;
        uint8_t *mutant = mutate_copy(header, sizeof header - 1, 1, &seed, &len);
        uint8_t *bytes = calloc(1, 8 + len + 35);
        assert_non_null(bytes);
        bytes[0] = (uint8_t)(len & 0xff);
        bytes[1] = (uint8_t)(len >> 8);
        memcpy(bytes + 8, mutant, len);
        write_bytes(bytes, 8 + len + 35);
        free(bytes);
        free(mutant);
        struct safetensors *file;
        if (safetensors_open(&file, path, NULL) == STATUS_OK) {
            accepted++;
            uint64_t total = 0;
            for (size_t j = 0; j < safetensors_count(file); j++) {
                total += safetensors_at(file, j)->bytes;
            }
            assert_int_equal(total, 35);
        }
        safetensors_close(&file);
    }
    print_message("%zu of 10000 mutants still kept every rule\n", accepted);
    assert_in_range(accepted, 1, 9999);
}

// --- Python --------------------------------------------------------------------------------------

// A Python that has the package: the system's, or one of our own beside the test programs.
static bool find_python(char *python, size_t capacity)
{
    snprintf(python, capacity, "python3");
    if (system("python3 -c 'import safetensors.numpy' >/dev/null 2>&1") == 0) {
        return true;
    }
    const char *program = getenv("BYOL_PROGRAM");
    const char *slash = program ? strrchr(program, '/') : NULL;
    int len = slash ? (int)(slash - program) : 0;
    snprintf(python, capacity, "%.*s/python/bin/python", len ? len : 5, len ? program : "build");
    char command[1200];
    snprintf(command, sizeof command,
             "d='%.*s/python'; test -x \"$d/bin/python\" || python3 -m venv \"$d\" >/dev/null 2>&1;"
             "\"$d/bin/python\" -c 'import safetensors.numpy' 2>/dev/null || "
             "timeout 60 \"$d/bin/python\" -m pip -q --retries 0 --timeout 10 install safetensors "
             "numpy >/dev/null 2>&1;"
             "\"$d/bin/python\" -c 'import safetensors.numpy' >/dev/null 2>&1",
             len ? len : 5, len ? program : "build");
    return system(command) == 0;
}

static const char script[] =
    "import sys, safetensors, safetensors.numpy\n"
    "tensors = safetensors.numpy.load_file(sys.argv[1])\n"
    "shapes = {name: (str(t.dtype), t.shape) for name, t in tensors.items()}\n"
    "assert shapes == {'online/linear/w': ('float32', (2, 3)), 'flags': ('uint8', (5,)),\n"
    "    'online/linear/b': ('float32', (4,)), 'empty': ('float32', (0, 7)),\n"
    "    'step': ('int64', ())}, shapes\n"
    "assert tensors['step'] == -5\n"
    "assert tensors['online/linear/b'].tolist() == [4, 3, 2, 1]\n"
    "assert tensors['online/linear/w'][0].tolist() == [1.5, -2.25, 0]\n"
    "assert tensors['flags'].tolist() == [1, 2, 3, 254, 255]\n"
    "with safetensors.safe_open(sys.argv[1], framework='np') as file:\n"
    "    facts = file.metadata()\n"
    "assert facts['config'] == 'batch: 256\\nname: \"gr\\u00f6\\u00dfe\"\\n', facts\n"
    "assert len(facts['crc32c']) == 8 and len(facts['crc32c:flags']) == 8\n";

static void test_python_opens_our_files(void **state)
{
    (void)state;
    char python[600], script_path[300], command[1600];
    if (!find_python(python, sizeof python)) {
        print_message("skipped: no python3 with the packages 'safetensors' and 'numpy', and none "
                      "to be had\n");
        skip();
    }
    write_samples();
    snprintf(script_path, sizeof script_path, "%s/check.py", directory);
    FILE *file = fopen(script_path, "w");
    assert_non_null(file);
    fputs(script, file);
    assert_int_equal(fclose(file), 0);
    snprintf(command, sizeof command, "'%s' '%s' '%s' 2>&1", python, script_path, path);
    assert_int_equal(system(command), 0);
    unlink(script_path);
}

static int make_directory(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/byol-safetensors-XXXXXX", parent ? parent : "/tmp");
    if (mkdtemp(directory) == NULL) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/file.safetensors", directory);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_reads_back),
        cmocka_unit_test(test_the_same_tensors_give_the_same_bytes),
        cmocka_unit_test(test_every_flipped_bit_is_noticed),
        cmocka_unit_test(test_every_cut_is_noticed),
        cmocka_unit_test(test_foreign_files_and_broken_rules),
        cmocka_unit_test(test_the_header_has_a_limit),
        cmocka_unit_test(test_bad_requests_leave_the_old_file),
        cmocka_unit_test(test_every_failing_call_keeps_a_whole_file),
        cmocka_unit_test(test_a_signed_header_that_is_no_json_is_damage),
        cmocka_unit_test(test_mutants_never_pass),
        cmocka_unit_test(test_mutants_of_foreign_files),
        cmocka_unit_test(test_python_opens_our_files),
    };
    return cmocka_run_group_tests_name("formats/safetensors", tests, make_directory,
                                       remove_directory);
}
