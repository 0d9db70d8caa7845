// The one place that checks every call on a descriptor, and the descriptors of GPUs.
#include "trainer/cuda/cudnn_descriptor.h"
#include "trainer/cuda/cudnn_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status cudnn_check(cudnnStatus_t result, const char *name, const char *what,
                        struct error *error)
{
    if (result == CUDNN_STATUS_SUCCESS) {
        return STATUS_OK;
    }
    char message[256] = "";
    cudnnGetLastErrorString(message, sizeof message);
    enum status status = CUDNN_STATUS_CATEGORY(result) == CUDNN_STATUS_NOT_SUPPORTED
                             ? STATUS_UNSUPPORTED
                             : STATUS_DEVICE;
    return error_set(error, status, NULL, NOWHERE, NOWHERE, "cuDNN, %s: %s: %s%s%s", name, what,
                     cudnnGetErrorString(result), message[0] != '\0' ? ": " : "", message);
}

void cudnn_drop(cudnnBackendDescriptor_t *descriptor)
{
    if (*descriptor != NULL) {
        cudnnBackendDestroyDescriptor(*descriptor);
        *descriptor = NULL;
    }
}

void cudnn_drop_all(cudnnBackendDescriptor_t *descriptors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cudnn_drop(&descriptors[i]);
    }
}

enum status cudnn_make(cudnnBackendDescriptor_t *out, cudnnBackendDescriptorType_t type,
                       const struct cudnn_attribute *attributes, size_t count, const char *name,
                       const char *what, struct error *error)
{
    *out = NULL;
    cudnnStatus_t result = cudnnBackendCreateDescriptor(type, out);
    for (size_t i = 0; i < count && result == CUDNN_STATUS_SUCCESS; i++) {
        const struct cudnn_attribute *a = &attributes[i];
        result = cudnnBackendSetAttribute(*out, a->name, a->type, a->count, a->values);
    }
    if (result == CUDNN_STATUS_SUCCESS) {
        result = cudnnBackendFinalize(*out);
    }
    enum status status = cudnn_check(result, name, what, error);
    if (status != STATUS_OK) {
        cudnn_drop(out);
    }
    return status;
}

// cuDNN fills in descriptors that exist already. It is not asked for their number first: of knobs
// it says 0 then.
enum status cudnn_take(cudnnBackendDescriptor_t from, cudnnBackendAttributeName_t attribute,
                       cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out,
                       size_t capacity, size_t *count, const char *name, const char *what,
                       struct error *error)
{
    int64_t held = 0;
    size_t made = 0;
    cudnnStatus_t result = CUDNN_STATUS_SUCCESS;
    for (; made < capacity && result == CUDNN_STATUS_SUCCESS; made++) {
        out[made] = NULL;
        result = cudnnBackendCreateDescriptor(type, &out[made]);
    }
    if (result == CUDNN_STATUS_SUCCESS) {
        result = cudnnBackendGetAttribute(from, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                          (int64_t)capacity, &held, out);
    }
    enum status status = cudnn_check(result, name, what, error);
    *count = status != STATUS_OK || held < 0 ? 0 : (size_t)held;
    *count = *count < capacity ? *count : capacity;
    cudnn_drop_all(out + *count, made - *count);
    return status;
}

enum status cudnn_take_number(cudnnBackendDescriptor_t from, cudnnBackendAttributeName_t attribute,
                              cudnnBackendAttributeType_t type, int64_t *number, const char *name,
                              const char *what, struct error *error)
{
    int64_t got = 0;
    cudnnStatus_t result = cudnnBackendGetAttribute(from, attribute, type, 1, &got, number);
    if (result == CUDNN_STATUS_SUCCESS && got != 1) {
        result = CUDNN_STATUS_INTERNAL_ERROR_UNEXPECTED_VALUE;
    }
    return cudnn_check(result, name, what, error);
}

enum status cudnn_take_text(cudnnBackendDescriptor_t from, cudnnBackendAttributeName_t attribute,
                            char **text, const char *name, const char *what, struct error *error)
{
    int64_t length = 0;
    *text = NULL;
    cudnnStatus_t result =
        cudnnBackendGetAttribute(from, attribute, CUDNN_TYPE_CHAR, 0, &length, NULL);
    if (result == CUDNN_STATUS_SUCCESS && length < 0) {
        result = CUDNN_STATUS_INTERNAL_ERROR_UNEXPECTED_VALUE;
    }
    if (result != CUDNN_STATUS_SUCCESS) {
        return cudnn_check(result, name, what, error);
    }
    *text = calloc((size_t)length + 1, 1);
    if (*text == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "cuDNN, %s: no memory",
                         name);
    }
    result = cudnnBackendGetAttribute(from, attribute, CUDNN_TYPE_CHAR, length, &length, *text);
    enum status status = cudnn_check(result, name, what, error);
    if (status != STATUS_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}

// --- properties of a GPU -------------------------------------------------------------------------

#define PROPERTIES "properties of the GPU"

void cudnn_version_text(char *text, size_t capacity)
{
    size_t version = cudnnGetVersion();
    snprintf(text, capacity, "%zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
}

enum status cudnn_properties_of_handle(cudnnBackendDescriptor_t *out, cudnnHandle_t handle,
                                       struct error *error)
{
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle},
    };
    return cudnn_make(out, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, attributes, COUNT(attributes),
                      PROPERTIES, "from the device", error);
}

enum status cudnn_properties_of_json(cudnnBackendDescriptor_t *out, const char *json,
                                     struct error *error)
{
    const struct cudnn_attribute attributes[] = {
        {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json), json},
    };
    return cudnn_make(out, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, attributes, COUNT(attributes),
                      PROPERTIES, "from text", error);
}

enum status cudnn_properties_json(cudnnBackendDescriptor_t properties, char **json,
                                  struct error *error)
{
    return cudnn_take_text(properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, json, PROPERTIES,
                           "as text", error);
}
