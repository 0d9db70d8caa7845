// Finding, checking and opening the plugin of the device `cuda`.
#include "trainer/device/cuda_plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct device_ops *plugin; // of the one that was opened

static enum status no_device(struct error *error, const char *reason, const char *detail)
{
    return error_set(error, STATUS_NO_DEVICE, NULL, NOWHERE, NOWHERE, "no device 'cuda': %s%s",
                     reason, detail);
}

// --- finding

// The folder of the program, without the last slash; false when the system does not say.
static bool program_folder(char *folder, size_t capacity)
{
    ssize_t length = readlink("/proc/self/exe", folder, capacity - 1);
    if (length <= 0) {
        return false;
    }
    folder[length] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash == NULL) {
        return false;
    }
    *slash = '\0';
    return true;
}

static bool find_beside_program(char *path, size_t capacity)
{
    static const char *const places[] = {"", "/../lib/byol"};
    char folder[PATH_MAX];
    if (!program_folder(folder, sizeof folder)) {
        return false;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int length = snprintf(path, capacity, "%s%s/" CUDA_PLUGIN_FILE, folder, places[i]);
        if (length > 0 && (size_t)length < capacity && access(path, F_OK) == 0) {
            return true;
        }
    }
    return false;
}

static enum status find_plugin(char *path, size_t capacity, struct error *error)
{
    const char *named = getenv("BYOL_CUDA_PLUGIN");
    if (named == NULL) {
        return find_beside_program(path, capacity)
                   ? STATUS_OK
                   : no_device(error,
                               "its plugin " CUDA_PLUGIN_FILE " is neither beside the program nor "
                               "in ../lib/byol (it is built where nvcc and cuDNN are found)",
                               "");
    }
    if (*named == '\0') {
        return no_device(error, "BYOL_CUDA_PLUGIN is empty", "");
    }
    if (access(named, F_OK) != 0) {
        return no_device(error, "BYOL_CUDA_PLUGIN names no file: ", named);
    }
    // With a slash, or the system would look for it among its libraries.
    int length = snprintf(path, capacity, "%s%s", strchr(named, '/') ? "" : "./", named);
    return length > 0 && (size_t)length < capacity
               ? STATUS_OK
               : no_device(error, "BYOL_CUDA_PLUGIN is too long", "");
}

// --- opening

// In dlerror's words, which name the plugin or the library that it lacks.
static enum status cannot_load(struct error *error)
{
    const char *reason = dlerror();
    bool nvidia = strstr(reason, "libcudnn") != NULL || strstr(reason, "libcublas") != NULL;
    char text[400];
    snprintf(text, sizeof text, "%.300s%s", reason,
             nvidia ? " (install NVIDIA's library, or add its folder to LD_LIBRARY_PATH)" : "");
    return no_device(error, "its plugin cannot be loaded: ", text);
}

// POSIX wants functions to come through this pointer; C has no cast for it.
static bool find_function(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

static enum status check_plugin(void *library, const char *path, cuda_plugin_device **device,
                                struct error *error)
{
    static const struct cuda_plugin_layout wanted = CUDA_PLUGIN_LAYOUT;
    cuda_plugin_check *check;
    if (!find_function(library, CUDA_PLUGIN_CHECK, &check) ||
        !find_function(library, CUDA_PLUGIN_DEVICE, device)) {
        return no_device(error, "this is not its plugin: ", path);
    }
    if (memcmp(check(), &wanted, sizeof wanted) != 0) {
        return error_set(error, STATUS_VERSION, path, NOWHERE, NOWHERE,
                         "this plugin of device 'cuda' is of another version than the program: "
                         "build and install both together");
    }
    return STATUS_OK;
}

static enum status load_plugin(struct error *error)
{
    char path[PATH_MAX];
    cuda_plugin_device *device = NULL;
    enum status status = find_plugin(path, sizeof path, error);
    if (status != STATUS_OK) {
        return status;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return cannot_load(error);
    }
    status = check_plugin(library, path, &device, error);
    if (status != STATUS_OK || device == NULL) {
        dlclose(library);
        return status;
    }
    plugin = device();
    return STATUS_OK;
}

static enum status open_device(struct device **out, int threads, enum device_precision precision,
                               struct error *error)
{
    *out = NULL;
    pthread_mutex_lock(&lock);
    enum status status = plugin != NULL ? STATUS_OK : load_plugin(error);
    pthread_mutex_unlock(&lock);
    return status == STATUS_OK ? plugin->open(out, threads, precision, error) : status;
}

const struct device_ops cuda_device_ops = {
    .name = "cuda",
    .summary = "one NVIDIA GPU (plugin " CUDA_PLUGIN_FILE ")",
    .open = open_device,
};
