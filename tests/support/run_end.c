#include "tests/support/run_end.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/tiny_run.h"
#include "trainer/run/directory.h"

struct safetensors *run_end_open(const char *directory, struct checkpoint_state *state)
{
    char path[RUN_PATH], warning[1024];
    struct safetensors *file;
    struct error error;
    assert_status(checkpoint_latest(directory, path, sizeof path, warning, sizeof warning, &error),
                  STATUS_OK, &error);
    assert_string_equal(warning, "");
    assert_status(checkpoint_open(&file, path, state, &error), STATUS_OK, &error);
    return file;
}

void assert_same_tensors(const struct safetensors *left, const struct safetensors *right)
{
    assert_int_equal(safetensors_count(left), safetensors_count(right));
    for (size_t i = 0; i < safetensors_count(left); i++) {
        const struct tensor *tensor = safetensors_at(left, i);
        const struct tensor *other = safetensors_find(right, tensor->name);
        assert_non_null(other);
        assert_int_equal(tensor->bytes, other->bytes);
        if (memcmp(tensor->data, other->data, tensor->bytes) != 0) {
            fail_msg("tensor '%s' differs", tensor->name);
        }
    }
}

void assert_same_end(const char *left, const char *right)
{
    struct checkpoint_state a, b;
    struct safetensors *x = run_end_open(left, &a), *y = run_end_open(right, &b);
    assert_int_equal(a.step, b.step);
    assert_same_tensors(x, y);
    safetensors_close(&x);
    safetensors_close(&y);
}
