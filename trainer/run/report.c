// The closing report of a session as JSON.
#include "trainer/run/report.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"
#include "trainer/run/directory.h"

#define SKIPS_LISTED    1000
#define SESSIONS_LISTED 100

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *count(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *describe_dataset(const struct dataset *dataset)
{
    char id[24];
    snprintf(id, sizeof id, "%016" PRIx64, dataset_id(dataset));
    json_t *object = json_object();
    json_object_set_new(object, "directory", json_string(dataset_directory(dataset)));
    json_object_set_new(object, "id", json_string(id));
    json_object_set_new(object, "images", count(dataset_count(dataset)));
    json_object_set_new(object, "classes", count(dataset_class_count(dataset)));
    char *inexact = dataset_not_exact(dataset);
    json_object_set_new(object, "not_exact", inexact ? json_string(inexact) : json_null());
    free(inexact);
    return object;
}

static json_t *describe_loader(const struct loader *loader)
{
    struct loader_counters counters = loader_counters(loader);
    bool uring = loader_io_used(loader) == LOADER_IO_URING;
    json_t *object = json_object();
    json_object_set_new(object, "io", json_string(uring ? "uring" : "pread"));
    json_object_set_new(object, "bytes_read", count(counters.read_bytes));
    json_object_set_new(object, "read_wait_seconds", number(counters.read_wait));
    json_object_set_new(object, "unpack_seconds", number(counters.unpack));
    json_object_set_new(object, "decode_seconds", number(counters.decode));
    json_object_set_new(object, "augment_seconds", number(counters.augment));
    json_object_set_new(object, "slot_wait_seconds", number(counters.slot_wait));
    json_object_set_new(object, "trainer_wait_seconds", number(counters.consumer_wait));
    return object;
}

static json_t *list_skips(const struct loader *loader)
{
    json_t *list = json_array();
    struct loader_skip *skips = calloc(SKIPS_LISTED, sizeof *skips);
    size_t found = skips ? loader_skips(loader, skips, SKIPS_LISTED) : 0;
    for (size_t i = 0; i < found && i < SKIPS_LISTED; i++) {
        json_t *object = json_object();
        json_object_set_new(object, "record", count(skips[i].record));
        json_object_set_new(object, "file", json_string(skips[i].error.path));
        json_object_set_new(object, "reason", json_string(skips[i].error.reason));
        json_array_append_new(list, object);
    }
    free(skips);
    return list;
}

static void describe_end(json_t *object, const struct report *report)
{
    const char *ended = report->ended == STATUS_OK ? "finished" : status_name(report->ended);
    json_object_set_new(object, "ended", json_string(ended));
    json_object_set_new(object, "reason", json_string(report->reason));
    json_object_set_new(object, "step", count(report->result->step));
}

// Of the sessions before, which the report that stands there knows, and of this one.
static json_t *list_sessions(const char *path, const struct report *report)
{
    json_t *old = report->from > 0 ? json_load_file(path, 0, NULL) : NULL;
    json_t *list = json_incref(json_object_get(old, "sessions"));
    json_t *session = json_object();
    if (!json_is_array(list)) {
        json_decref(list);
        list = json_array();
    }
    while (json_array_size(list) >= SESSIONS_LISTED) {
        json_array_remove(list, 0);
    }
    json_object_set_new(session, "from", count(report->from));
    describe_end(session, report);
    json_object_set_new(session, "seconds", number(report->result->seconds));
    json_object_set_new(session, "device", json_string(report->device));
    json_object_set_new(session, "skipped_records", count(report->result->skipped_records));
    json_array_append_new(list, session);
    json_decref(old);
    return list;
}

static json_t *describe(const char *path, const struct report *report)
{
    const struct pretrain_result *result = report->result;
    json_t *object = json_object();
    describe_end(object, report);
    json_object_set_new(object, "steps", count(report->steps));
    json_object_set_new(object, "loss", number(result->loss));
    json_object_set_new(object, "online_top1", number(100 * result->top1));
    json_object_set_new(object, "knn_top1", number(100 * result->knn));
    json_object_set_new(object, "rankme", number(result->rankme));
    json_object_set_new(object, "spread", number(result->spread));
    json_object_set_new(object, "healthy_spread", number(report->healthy));
    json_object_set_new(object, "checkpoint", json_string(result->checkpoint));
    json_object_set_new(object, "seconds", number(result->seconds));
    json_object_set_new(object, "seconds_in_all", number(report->seconds_in_all));
    json_object_set_new(object, "pairs_per_second", number(result->pairs_per_second));
    json_object_set_new(object, "data_wait", number(result->data_wait));
    json_object_set_new(object, "device", json_string(report->device));
    json_object_set_new(object, "ranks", count(report->ranks));
    json_object_set_new(object, "device_bytes", count(result->device_bytes));
    json_object_set_new(object, "loader_bytes", count(result->loader_bytes));
    json_object_set_new(object, "dataset", describe_dataset(report->dataset));
    json_object_set_new(object, "loader", describe_loader(report->loader));
    json_object_set_new(object, "skipped_records", count(result->skipped_records));
    json_object_set_new(object, "skips", list_skips(report->loader));
    json_object_set_new(object, "sessions", list_sessions(path, report));
    return object;
}

enum status report_write(const char *run_directory, const struct report *report,
                         struct error *error)
{
    char path[RUN_PATH];
    enum status status = run_directory_path(run_directory, "report.json", path, error);
    if (status != STATUS_OK) {
        return status;
    }
    json_t *object = describe(path, report);
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    json_decref(object);
    status = text ? file_write_durably(path, text, strlen(text), error)
                  : error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE,
                              "no memory for the report");
    free(text);
    return status;
}
