#include "tests/support/device_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST_ROWS 8

// The functions of a row that opens; NULL: it does not. A row that stands for a plugin has its own
// functions only once it is open.
static const struct device_ops *open_row(const struct device_ops *ops)
{
    struct device *device;
    struct error error;
    enum status status = device_open(&device, ops->name, 1, DEVICE_F32, &error);
    if (status == STATUS_OK) {
        ops = device->ops;
        device_close(&device);
        return ops;
    }
    if (status != STATUS_NO_DEVICE || getenv("REQUIRE_DEVICE") != NULL) {
        fail_msg("device '%s': %s", ops->name, error.reason);
    }
    print_message("skipped: device '%s': %s\n", ops->name, error.reason);
    return NULL;
}

const struct device_ops *const *device_rows(void)
{
    static const struct device_ops *rows[MOST_ROWS + 1];
    static bool known;
    size_t count = 0;
    for (const struct device_ops *const *ops = device_table; !known && *ops; ops++) {
        assert_true(count < MOST_ROWS);
        rows[count] = open_row(*ops);
        count += rows[count] != NULL;
    }
    known = true;
    return rows;
}

bool device_is_slow(const struct device *device)
{
    char text[256] = "";
    device->ops->describe(device, text, sizeof text);
    return strcmp(device->ops->name, "ref") == 0 || strstr(text, "emulated") != NULL;
}

float *device_value(struct device *device, float value)
{
    void *memory;
    assert_int_equal(device->ops->allocate(device, &memory, sizeof value, NULL), STATUS_OK);
    assert_int_equal(device->ops->copy_in(device, memory, &value, sizeof value), STATUS_OK);
    return memory;
}
