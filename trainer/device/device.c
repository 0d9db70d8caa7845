// The table of devices that were built in, and opening one by name.
#include "trainer/device/cuda_plugin.h"
#include "trainer/device/op.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

const struct device_ops *const device_table[] = {
#if HAVE_DNNL
    &cpu_device_ops,
#endif
    &ref_device_ops,
    &cuda_device_ops,
    NULL,
};

#define MAX_THREADS 1024

static int thread_count(int wanted)
{
    int count = wanted > 0 ? wanted : omp_get_num_procs();
    return count < MAX_THREADS ? count : MAX_THREADS;
}

enum status device_open(struct device **out, const char *name, int threads,
                        enum device_precision precision, struct error *error)
{
    *out = NULL;
    char known[128] = "";
    for (const struct device_ops *const *ops = device_table; *ops; ops++) {
        if (strcmp((*ops)->name, name) == 0) {
            return (*ops)->open(out, thread_count(threads), precision, error);
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", (*ops)->name);
    }
    if (strcmp(name, "cpu") == 0) {
        return error_set(error, STATUS_NO_DEVICE, NULL, NOWHERE, NOWHERE,
                         "device 'cpu' was not built in: install oneDNN (Debian: libdnnl-dev) and "
                         "build again");
    }
    return error_set(error, STATUS_NO_DEVICE, NULL, NOWHERE, NOWHERE,
                     "no device '%s'; this program has: %s", name, known);
}

void device_close(struct device **device)
{
    if (*device != NULL) {
        (*device)->ops->close(*device);
        *device = NULL;
    }
}
