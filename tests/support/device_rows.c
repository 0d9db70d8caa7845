#include "tests/support/device_rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MOST_ROWS 8

static bool row_opens(const struct device_ops *ops)
{
    struct device *device;
    struct error error;
    enum status status = device_open(&device, ops->name, 1, DEVICE_F32, &error);
    if (status == STATUS_OK) {
        device_close(&device);
        return true;
    }
    if (status != STATUS_NO_DEVICE || getenv("REQUIRE_DEVICE") != NULL) {
        fail_msg("device '%s': %s", ops->name, error.reason);
    }
    print_message("SKIP device '%s': %s\n", ops->name, error.reason);
    return false;
}

const struct device_ops *const *device_rows(void)
{
    static const struct device_ops *rows[MOST_ROWS + 1];
    static bool known;
    size_t count = 0;
    for (const struct device_ops *const *ops = device_table; !known && *ops; ops++) {
        assert_true(count < MOST_ROWS);
        if (row_opens(*ops)) {
            rows[count++] = *ops;
        }
    }
    known = true;
    return rows;
}

float *device_value(struct device *device, float value)
{
    void *memory;
    assert_int_equal(device->ops->allocate(device, &memory, sizeof value, NULL), STATUS_OK);
    assert_int_equal(device->ops->copy_in(device, memory, &value, sizeof value), STATUS_OK);
    return memory;
}
