// Which plan each convolution got: the one found first is taken again in this process, and told to
// others. A text begins with what the device is; then comes a line for each plan, the convolution,
// a tab, the plan.
#include "trainer/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONV_NAME 192

struct choice {
    char conv[CONV_NAME], plan[CUDA_CONV_PLAN_TEXT];
};

struct cuda_choices {
    struct choice *all;
    size_t count, capacity;
};

// --- the list ------------------------------------------------------------------------------------

static void name_conv(const struct cuda_conv *conv, enum cuda_conv_pass pass, char name[CONV_NAME])
{
    snprintf(name, CONV_NAME, "%d %d, %u %u %u %u, %u %u %u, %u %u, %u %u %u %u", (int)pass,
             conv->half ? 1 : 0, conv->n, conv->h, conv->w, conv->c, conv->out_h, conv->out_w,
             conv->out_c, conv->kernel, conv->stride, conv->pad_top, conv->pad_left,
             conv->pad_bottom, conv->pad_right);
}

static const struct choice *find(const struct cuda_choices *choices, const char *conv)
{
    for (size_t i = 0; choices != NULL && i < choices->count; i++) {
        if (strcmp(choices->all[i].conv, conv) == 0) {
            return &choices->all[i];
        }
    }
    return NULL;
}

// A new one, empty; NULL for want of memory.
static struct choice *add(struct cuda_device *device)
{
    struct cuda_choices *choices = device->choices;
    if (choices == NULL) {
        choices = device->choices = calloc(1, sizeof *choices);
    }
    if (choices != NULL && choices->count == choices->capacity) {
        size_t capacity = choices->capacity > 0 ? 2 * choices->capacity : 64;
        struct choice *larger = realloc(choices->all, capacity * sizeof *larger);
        if (larger == NULL) {
            return NULL;
        }
        choices->all = larger;
        choices->capacity = capacity;
    }
    return choices != NULL ? memset(&choices->all[choices->count++], 0, sizeof *choices->all)
                           : NULL;
}

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "no memory for the plans of convolutions");
}

void cuda_choices_close(struct cuda_device *device)
{
    if (device->choices != NULL) {
        free(device->choices->all);
        free(device->choices);
        device->choices = NULL;
    }
}

// --- choosing ------------------------------------------------------------------------------------

enum status cuda_choose_plan(struct cuda_device *device, const struct cuda_conv *conv,
                             enum cuda_conv_pass pass, struct cuda_conv_plan **out,
                             struct error *error)
{
    char name[CONV_NAME];
    name_conv(conv, pass, name);
    const struct choice *known = find(device->choices, name);
    if (known != NULL) {
        return cuda_conv_plan_open_text(out, device->library, conv, pass, known->plan, error);
    }
    enum status status = cuda_conv_plan_open(out, device->library, conv, pass, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct choice *choice = add(device);
    if (choice == NULL) {
        cuda_conv_plan_close(out);
        return no_memory(error);
    }
    memcpy(choice->conv, name, sizeof name);
    cuda_conv_plan_text(*out, choice->plan);
    return STATUS_OK;
}

// --- telling -------------------------------------------------------------------------------------

#define HEADING 200

// Plans are for one kind of GPU, and one version of the library.
static void name_device(const struct cuda_device *device, char heading[HEADING])
{
    snprintf(heading, HEADING, "%s, %s", device->name, device->half ? "bf16" : "f32");
}

enum status cuda_tell_choices(const struct device *base, char **text, struct error *error)
{
    const struct cuda_device *device = (const struct cuda_device *)base;
    const struct cuda_choices *choices = device->choices;
    char heading[HEADING];
    size_t length = 0;
    FILE *stream = open_memstream(text, &length);
    if (stream == NULL) {
        return no_memory(error);
    }
    name_device(device, heading);
    bool fine = fprintf(stream, "%s\n", heading) > 0;
    for (size_t i = 0; choices != NULL && i < choices->count && fine; i++) {
        fine = fprintf(stream, "%s\t%s\n", choices->all[i].conv, choices->all[i].plan) > 0;
    }
    return fclose(stream) == 0 && fine ? STATUS_OK : no_memory(error);
}

static enum status take_line(struct cuda_device *device, char *line, struct error *error)
{
    char *plan = strchr(line, '\t');
    size_t conv = plan != NULL ? (size_t)(plan - line) : 0;
    size_t length = plan != NULL ? strlen(++plan) : 0;
    if (plan == NULL || conv >= CONV_NAME || length >= CUDA_CONV_PLAN_TEXT) {
        return error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE,
                         "not the plan of a convolution: '%.80s'", line);
    }
    struct choice *choice = add(device);
    if (choice == NULL) {
        return no_memory(error);
    }
    memcpy(choice->conv, line, conv);
    memcpy(choice->plan, plan, length);
    return STATUS_OK;
}

enum status cuda_take_choices(struct device *base, const char *text, bool *taken,
                              struct error *error)
{
    struct cuda_device *device = (struct cuda_device *)base;
    char heading[HEADING], *lines = strdup(text), *rest = lines;
    if (lines == NULL) {
        return no_memory(error);
    }
    name_device(device, heading);
    *taken = strcmp(strsep(&rest, "\n"), heading) == 0;
    enum status status = STATUS_OK;
    char *line;
    while (*taken && status == STATUS_OK && (line = strsep(&rest, "\n")) != NULL) {
        status = line[0] != '\0' ? take_line(device, line, error) : STATUS_OK;
    }
    free(lines);
    return status;
}
