#include "tests/support/tiny_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *tiny_device(void)
{
    const char *wanted = getenv("BYOL_TEST_DEVICE");
    if (wanted != NULL) {
        return wanted;
    }
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        if (strcmp((*ops)->name, "cpu") == 0) {
            return "cpu";
        }
    }
    return "ref";
}

// width=2: oneDNN has fast convolutions for 16 channels, not for 8.
struct run_config tiny_config(void)
{
    static const char *const assignments[] = {
        "encoder=tiny",
        "width=2",
        "stem=small",
        "views.base=small",
        "views.size=8",
        "batch=8",
        "epochs=3",
        "warmup_epochs=1",
        "base_learning_rate=2",
        "projector_hidden=8",
        "projector_output=8",
        "predictor_hidden=8",
        "log_steps=2",
        "precision=f32",
        "threads=1",
        "loader_threads=1",
        "keep_checkpoints=3",
        "checkpoint_seconds=0",
    };
    struct run_config config;
    struct error error;
    enum status status = run_config_resolve(&config, NULL, assignments,
                                            sizeof assignments / sizeof assignments[0], &error);
    assert_status(status, STATUS_OK, &error);
    snprintf(config.device, sizeof config.device, "%s", tiny_device());
    return config;
}

void assert_status(enum status status, enum status wanted, const struct error *error)
{
    char text[1200];
    if (status != wanted) {
        fail_msg("status '%s', expected '%s': %s", status_name(status), status_name(wanted),
                 status == STATUS_OK ? "" : error_text(error, text, sizeof text));
    }
}
