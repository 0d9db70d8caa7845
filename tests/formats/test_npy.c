// .npy arrays: what is written reads back, NumPy's own bytes are read, and nothing else is.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "formats/file.h"
#include "formats/npy.h"
#include "tests/support/mutate.h"

static char directory[256];
static char path[300];

static void write_bytes(const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
}

static void test_every_type_and_shape_reads_back(void **state)
{
    (void)state;
    uint64_t data[60];
    for (uint64_t i = 0; i < 60; i++) {
        data[i] = i * UINT64_C(0x0123456789abcdef);
    }
    const struct npy shapes[] = {
        {.dims = 0, .count = 1},
        {.dims = 1, .shape = {60}, .count = 60},
        {.dims = 1, .shape = {1}, .count = 1},
        {.dims = 3, .shape = {3, 4, 5}, .count = 60},
        {.dims = 2, .shape = {0, 7}, .count = 0},
        {.dims = 8, .shape = {1, 2, 1, 3, 1, 1, 2, 5}, .count = 60},
    };
    for (enum npy_type type = NPY_FLOAT32; type <= NPY_INT64; type++) {
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            struct npy array = shapes[i], got;
            array.type = type;
            array.data = data;
            assert_int_equal(npy_write(path, &array, NULL), STATUS_OK);
            assert_int_equal(npy_read(path, &got, NULL), STATUS_OK);
            assert_int_equal(got.type, type);
            assert_int_equal(got.dims, array.dims);
            assert_int_equal(got.count, array.count);
            for (unsigned d = 0; d < got.dims; d++) {
                assert_int_equal(got.shape[d], array.shape[d]);
            }
            if (got.count > 0) {
                assert_memory_equal(got.data, data, got.count * npy_type_size(type));
            }
            npy_free(&got);
            assert_null(got.data);
        }
    }
}

// numpy.save(np.arange(6, dtype='<i4').reshape(2, 3)), byte by byte.
static void test_the_bytes_are_numpys(void **state)
{
    (void)state;
    uint8_t expected[128 + 24];
    memset(expected, ' ', 128);
    const uint8_t prefix[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0};
    static const char text[] = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }";
    int32_t values[6] = {0, 1, 2, 3, 4, 5};
    memcpy(expected, prefix, sizeof prefix);
    memcpy(expected + 10, text, sizeof text - 1);
    expected[127] = '\n';
    memcpy(expected + 128, values, sizeof values);
    struct npy array = {.type = NPY_INT32, .dims = 2, .shape = {2, 3}, .data = values};
    assert_int_equal(npy_write(path, &array, NULL), STATUS_OK);
    uint8_t *bytes;
    size_t len;
    assert_int_equal(file_read_all(path, 1000, &bytes, &len, NULL), STATUS_OK);
    assert_int_equal(len, sizeof expected);
    assert_memory_equal(bytes, expected, sizeof expected);
    free(bytes);
}

struct header {
    const char *text; // behind the 10 bytes of prefix
    size_t data_len;
    enum status status;
};

static const struct header headers[] = {
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8, STATUS_OK},
    {"{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}", 8, STATUS_OK},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n", 4, STATUS_OK},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 7, STATUS_TRUNCATED},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 9, STATUS_TRUNCATED},
    {"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n", 16, STATUS_UNSUPPORTED},
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }\n", 8, STATUS_UNSUPPORTED},
    {"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }\n", 8, STATUS_UNSUPPORTED},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }\n", 8, STATUS_UNSUPPORTED},
    {"{'descr': '<f4', 'fortran_order': False, }\n", 8, STATUS_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, }\n", 8, STATUS_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (x,), }\n", 8, STATUS_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n", 8, STATUS_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }\n", 4,
     STATUS_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n", 0,
     STATUS_CORRUPT},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }\n", 0,
     STATUS_CORRUPT},
    {"", 0, STATUS_UNSUPPORTED},
};

static size_t build(char *bytes, const char *header, size_t data_len)
{
    size_t len = strlen(header);
    memset(bytes, 0, 10 + len + data_len);
    bytes[8] = (char)len;
    for (size_t i = 0; i < 7; i++) {
        bytes[i] = "\x93NUMPY\x01"[i];
    }
    for (size_t i = 0; i < len; i++) {
        bytes[10 + i] = header[i];
    }
    return 10 + len + data_len;
}

static void test_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        char bytes[256] = {0};
        struct npy array;
        struct error error = {0};
        write_bytes(bytes, build(bytes, headers[i].text, headers[i].data_len));
        enum status status = npy_read(path, &array, &error);
        if (status != headers[i].status) {
            fail_msg("%s: %s, '%s'", headers[i].text, status_name(status), error.reason);
        }
        if (status != STATUS_OK) {
            assert_string_equal(error.path, path);
            assert_null(array.data);
        }
        npy_free(&array);
    }
}

static void test_other_files(void **state)
{
    (void)state;
    struct npy array;
    write_bytes("", 0);
    assert_int_equal(npy_read(path, &array, NULL), STATUS_UNSUPPORTED);
    write_bytes("\x93NUMPY\x02\x00\x00\x00", 10);
    assert_int_equal(npy_read(path, &array, NULL), STATUS_UNSUPPORTED);
    write_bytes("\x93NUMPY\x01\x00\x10\x00", 10);
    assert_int_equal(npy_read(path, &array, NULL), STATUS_TRUNCATED);
    unlink(path);
    assert_int_equal(npy_read(path, &array, NULL), STATUS_NOT_FOUND);
}

static void test_mutants_keep_length_and_shape_in_step(void **state)
{
    (void)state;
    char bytes[256] = {0};
    size_t len = build(bytes, headers[0].text, headers[0].data_len);
    uint64_t seed = 8;
    size_t accepted = 0;
    for (size_t i = 0; i < 5000; i++) {
        size_t mutant_len;
        uint8_t *mutant = mutate_copy(bytes, len, i % 2 ? 10 : 0, &seed, &mutant_len);
        write_bytes(mutant, mutant_len);
        free(mutant);
        struct npy array;
        if (npy_read(path, &array, NULL) == STATUS_OK) {
            accepted++;
            assert_true(array.count * npy_type_size(array.type) < mutant_len);
        }
        npy_free(&array);
    }
    assert_in_range(accepted, 1, 4999);
}

static int make_directory(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/byol-npy-XXXXXX", parent ? parent : "/tmp");
    if (mkdtemp(directory) == NULL) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/array.npy", directory);
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
        cmocka_unit_test(test_every_type_and_shape_reads_back),
        cmocka_unit_test(test_the_bytes_are_numpys),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_mutants_keep_length_and_shape_in_step),
    };
    return cmocka_run_group_tests_name("formats/npy", tests, make_directory, remove_directory);
}
