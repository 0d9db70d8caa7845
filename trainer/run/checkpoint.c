// Writing, finding and reading checkpoints.
#include "trainer/run/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "trainer/run/directory.h"

#define FORMAT_VERSION "1"
#define NAME_FORMAT    "checkpoint-%012" PRIu64 ".safetensors"

// --- files -----------------------------------------------------------------------------------

// The step in "checkpoint-STEP.safetensors"; false for any other name.
static bool parse_name(const char *name, uint64_t *step)
{
    static const char start[] = "checkpoint-";
    if (strncmp(name, start, sizeof start - 1) != 0) {
        return false;
    }
    const char *digits = name + sizeof start - 1;
    size_t count = strspn(digits, "0123456789");
    *step = strtoull(digits, NULL, 10);
    return count >= 12 && count < 20 && strcmp(digits + count, ".safetensors") == 0;
}

struct step_list {
    uint64_t *steps; // newest first
    size_t count;
};

static int newest_first(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a < b) - (a > b);
}

// A directory that does not exist has no checkpoints.
static enum status list_steps(struct step_list *list, const char *directory, struct error *error)
{
    *list = (struct step_list){NULL, 0};
    DIR *stream = opendir(directory);
    if (stream == NULL) {
        return errno == ENOENT ? STATUS_OK : error_errno(error, errno, directory, NOWHERE, "list");
    }
    enum status status = STATUS_OK;
    for (const struct dirent *entry; status == STATUS_OK && (entry = readdir(stream));) {
        uint64_t step;
        if (!parse_name(entry->d_name, &step)) {
            continue;
        }
        uint64_t *grown = realloc(list->steps, (list->count + 1) * sizeof *grown);
        if (grown == NULL) {
            status = error_set(error, STATUS_NO_MEMORY, directory, NOWHERE, NOWHERE,
                               "no memory to list checkpoints");
            break;
        }
        list->steps = grown;
        list->steps[list->count++] = step;
    }
    closedir(stream);
    if (list->count > 0) {
        qsort(list->steps, list->count, sizeof *list->steps, newest_first);
    }
    return status;
}

static enum status checkpoint_path(const char *run_directory, uint64_t step, char *path,
                                   struct error *error)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoints/" NAME_FORMAT, step);
    return run_directory_path(run_directory, name, path, error);
}

// All but the newest `keep` of those up to `step`. Failing to remove is harmless: the next save
// tries again.
static void remove_old(const char *run_directory, uint64_t step, unsigned keep)
{
    char path[RUN_PATH];
    struct step_list list;
    if (run_directory_path(run_directory, "checkpoints", path, NULL) != STATUS_OK ||
        list_steps(&list, path, NULL) != STATUS_OK) {
        return;
    }
    unsigned kept = 0;
    for (size_t i = 0; i < list.count; i++) {
        if (list.steps[i] <= step && ++kept > keep &&
            checkpoint_path(run_directory, list.steps[i], path, NULL) == STATUS_OK) {
            unlink(path);
        }
    }
    free(list.steps);
}

enum status checkpoint_set_aside(const char *run_directory, uint64_t step, struct error *error)
{
    char path[RUN_PATH];
    struct step_list list;
    enum status status = run_directory_path(run_directory, "checkpoints", path, error);
    if (status == STATUS_OK) {
        status = list_steps(&list, path, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; status == STATUS_OK && i < list.count && list.steps[i] > step; i++) {
        char aside[RUN_PATH + 16];
        status = checkpoint_path(run_directory, list.steps[i], path, error);
        snprintf(aside, sizeof aside, "%s.damaged", path);
        if (status == STATUS_OK && rename(path, aside) != 0) {
            status = error_errno(error, errno, path, NOWHERE, "set aside");
        }
    }
    free(list.steps);
    return status;
}

// --- writing ---------------------------------------------------------------------------------

// The method's tensors with a copy of their values on the host.
struct snapshot {
    struct method_tensor *source;
    struct tensor *tensors;
    float *values;
    size_t count;
};

static void snapshot_free(struct snapshot *snapshot)
{
    free(snapshot->source);
    free(snapshot->tensors);
    free(snapshot->values);
}

static enum status snapshot_allocate(struct snapshot *snapshot, struct method *method,
                                     struct error *error)
{
    *snapshot = (struct snapshot){.count = method->ops->tensors(method, NULL, 0)};
    snapshot->source = calloc(snapshot->count, sizeof *snapshot->source);
    snapshot->tensors = calloc(snapshot->count, sizeof *snapshot->tensors);
    uint64_t floats = 0;
    if (snapshot->source) {
        method->ops->tensors(method, snapshot->source, snapshot->count);
        for (size_t i = 0; i < snapshot->count; i++) {
            floats += snapshot->source[i].count;
        }
        snapshot->values = malloc(floats * sizeof(float));
    }
    if (snapshot->values == NULL || snapshot->tensors == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a copy of %zu tensors", snapshot->count);
    }
    return STATUS_OK;
}

static bool all_finite(const float *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) {
            return false;
        }
    }
    return true;
}

static enum status snapshot_take(struct snapshot *snapshot, struct device *device,
                                 struct error *error)
{
    float *values = snapshot->values;
    for (size_t i = 0; i < snapshot->count; i++) {
        const struct method_tensor *source = &snapshot->source[i];
        struct tensor *tensor = &snapshot->tensors[i];
        *tensor = (struct tensor){.name = source->name,
                                  .type = TENSOR_FLOAT32,
                                  .dims = source->dims,
                                  .bytes = source->count * sizeof(float),
                                  .data = values};
        for (unsigned dim = 0; dim < source->dims; dim++) {
            tensor->shape[dim] = source->shape[dim];
        }
        if (device->ops->copy_out(device, values, source->device, tensor->bytes) != STATUS_OK) {
            return error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                             "the device did not give back tensor '%s'", source->name);
        }
        if (!all_finite(values, source->count)) {
            return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                             "tensor '%s' holds values that are not finite", source->name);
        }
        values += source->count;
    }
    return STATUS_OK;
}

static enum status write_file(const char *path, const struct snapshot *snapshot,
                              const struct checkpoint_state *state, struct error *error)
{
    char step[24], epoch[24], batch[24], dataset[24];
    snprintf(step, sizeof step, "%" PRIu64, state->step);
    snprintf(epoch, sizeof epoch, "%" PRIu32, state->position.epoch);
    snprintf(batch, sizeof batch, "%" PRIu64, state->position.batch);
    snprintf(dataset, sizeof dataset, "%016" PRIx64, state->dataset_id);
    const struct tensor_metadata metadata[] = {
        {"format", CHECKPOINT_FORMAT},
        {"version", FORMAT_VERSION},
        {"step", step},
        {"epoch", epoch},
        {"batch", batch},
        {"dataset", dataset},
        {"config", state->config},
        {"history", state->history},
    };
    return safetensors_write(path, snapshot->tensors, snapshot->count, metadata,
                             sizeof metadata / sizeof metadata[0], error);
}

enum status checkpoint_save(const char *run_directory, struct device *device, struct method *method,
                            const struct checkpoint_state *state, unsigned keep, char *path,
                            struct error *error)
{
    struct snapshot snapshot = {0};
    enum status status = checkpoint_path(run_directory, state->step, path, error);
    if (status == STATUS_OK) {
        status = snapshot_allocate(&snapshot, method, error);
    }
    if (status == STATUS_OK) {
        status = snapshot_take(&snapshot, device, error);
    }
    if (status == STATUS_OK) {
        status = write_file(path, &snapshot, state, error);
    }
    if (status == STATUS_OK) {
        remove_old(run_directory, state->step, keep);
    }
    snapshot_free(&snapshot);
    return status;
}

// --- reading ---------------------------------------------------------------------------------

static enum status bad_metadata(const struct safetensors *file, const char *key,
                                struct error *error)
{
    return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                     "the checkpoint's metadata '%s' is %s", key,
                     safetensors_metadata(file, key) ? "not a number" : "missing");
}

static bool read_number(const struct safetensors *file, const char *key, int base, uint64_t *value)
{
    const char *text = safetensors_metadata(file, key);
    char *end = NULL;
    errno = 0;
    *value = text ? strtoull(text, &end, base) : 0;
    return text && *text && *end == '\0' && errno == 0;
}

static enum status read_state(const struct safetensors *file, struct checkpoint_state *state,
                              struct error *error)
{
    const char *format = safetensors_metadata(file, "format");
    const char *version = safetensors_metadata(file, "version");
    if (format == NULL || strcmp(format, CHECKPOINT_FORMAT) != 0 || version == NULL) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                         "a .safetensors file, but not a checkpoint of byol");
    }
    if (strcmp(version, FORMAT_VERSION) != 0) {
        return error_set(error, STATUS_VERSION, NULL, NOWHERE, NOWHERE,
                         "checkpoint version %s; this program reads version " FORMAT_VERSION,
                         version);
    }
    static const char *const keys[] = {"step", "epoch", "batch", "dataset"};
    uint64_t values[4];
    for (size_t i = 0; i < 4; i++) {
        if (!read_number(file, keys[i], i == 3 ? 16 : 10, &values[i])) {
            return bad_metadata(file, keys[i], error);
        }
    }
    *state = (struct checkpoint_state){
        .step = values[0],
        .position = {.epoch = (uint32_t)values[1], .batch = values[2]},
        .dataset_id = values[3],
        .config = safetensors_metadata(file, "config"),
        .history = safetensors_metadata(file, "history"),
    };
    if (state->config == NULL || state->history == NULL || values[1] > UINT32_MAX) {
        return bad_metadata(file, state->config == NULL ? "config" : "history", error);
    }
    return STATUS_OK;
}

enum status checkpoint_open(struct safetensors **out, const char *path,
                            struct checkpoint_state *state, struct error *error)
{
    enum status status = safetensors_open(out, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct error inner;
    status = read_state(*out, state, &inner);
    if (status == STATUS_OK && !safetensors_verified(*out)) {
        status = error_set(&inner, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                           "the checkpoint carries no checksums");
    }
    if (status != STATUS_OK) {
        safetensors_close(out);
        error_set(error, status, path, NOWHERE, NOWHERE, "%s", inner.reason);
    }
    return status;
}

// Damage makes us try an older one (also a file that another process just removed). Anything else,
// such as no memory, no permission or a newer version, would fail there too or must be known.
static bool is_damage(enum status status)
{
    return status == STATUS_CORRUPT || status == STATUS_TRUNCATED || status == STATUS_IO ||
           status == STATUS_LIMIT || status == STATUS_UNSUPPORTED || status == STATUS_NOT_FOUND;
}

// Appends "PATH: REASON; ".
static void note_damage(char *warning, size_t capacity, const struct error *damage)
{
    char text[sizeof damage->path + sizeof damage->reason + 64];
    size_t len = strlen(warning);
    snprintf(warning + len, capacity - len, "%s%s", len ? "; " : "",
             error_text(damage, text, sizeof text));
}

static enum status try_each(const struct step_list *list, const char *run_directory, char *path,
                            size_t capacity, char *warning, size_t warning_capacity,
                            struct error *error)
{
    for (size_t i = 0; i < list->count; i++) {
        char candidate[RUN_PATH];
        struct error damage;
        struct safetensors *file = NULL;
        struct checkpoint_state state;
        enum status status = checkpoint_path(run_directory, list->steps[i], candidate, error);
        if (status != STATUS_OK) {
            return status;
        }
        status = checkpoint_open(&file, candidate, &state, &damage);
        safetensors_close(&file);
        if (status == STATUS_OK) {
            snprintf(path, capacity, "%s", candidate);
            return STATUS_OK;
        }
        if (!is_damage(status)) {
            return error_set(error, status, damage.path, damage.offset, NOWHERE, "%s",
                             damage.reason);
        }
        note_damage(warning, warning_capacity, &damage);
    }
    return error_set(error, STATUS_CORRUPT, run_directory, NOWHERE, NOWHERE,
                     "all %zu checkpoints are damaged (%s): restore one from a copy, or start anew "
                     "in another directory",
                     list->count, warning);
}

enum status checkpoint_latest(const char *run_directory, char *path, size_t capacity, char *warning,
                              size_t warning_capacity, struct error *error)
{
    char directory[RUN_PATH];
    struct step_list list;
    warning[0] = '\0';
    enum status status = run_directory_path(run_directory, "checkpoints", directory, error);
    if (status == STATUS_OK) {
        status = list_steps(&list, directory, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    status = list.count > 0
                 ? try_each(&list, run_directory, path, capacity, warning, warning_capacity, error)
                 : error_set(error, STATUS_NOT_FOUND, run_directory, NOWHERE, NOWHERE,
                             file_exists(run_directory) ? "the run has no checkpoint"
                                                        : "there is no such run");
    free(list.steps);
    return status;
}

static bool same_shape(const struct tensor *tensor, const struct method_tensor *wanted)
{
    bool same = tensor->type == TENSOR_FLOAT32 && tensor->dims == wanted->dims;
    for (unsigned dim = 0; same && dim < wanted->dims; dim++) {
        same = tensor->shape[dim] == wanted->shape[dim];
    }
    return same && tensor->bytes == wanted->count * sizeof(float);
}

static enum status restore_each(const struct safetensors *file, struct device *device,
                                const struct method_tensor *tensors, size_t count,
                                struct error *error)
{
    if (safetensors_count(file) != count) {
        return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                         "the checkpoint holds %zu tensors, the method has %zu",
                         safetensors_count(file), count);
    }
    for (size_t i = 0; i < count; i++) {
        const struct tensor *tensor = safetensors_find(file, tensors[i].name);
        if (tensor == NULL || !same_shape(tensor, &tensors[i])) {
            return error_set(error, STATUS_CORRUPT, NULL, NOWHERE, NOWHERE,
                             "the checkpoint's tensor '%s' %s", tensors[i].name,
                             tensor ? "has another shape" : "is missing");
        }
        if (device->ops->copy_in(device, tensors[i].device, tensor->data, tensor->bytes) !=
            STATUS_OK) {
            return error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                             "the device did not take tensor '%s'", tensors[i].name);
        }
    }
    return STATUS_OK;
}

enum status checkpoint_restore(const struct safetensors *file, struct device *device,
                               struct method *method, struct error *error)
{
    size_t count = method->ops->tensors(method, NULL, 0);
    struct method_tensor *tensors = calloc(count, sizeof *tensors);
    if (tensors == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a list of %zu tensors", count);
    }
    method->ops->tensors(method, tensors, count);
    enum status status = restore_each(file, device, tensors, count, error);
    free(tensors);
    return status;
}
