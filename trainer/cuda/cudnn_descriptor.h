// Descriptors of cuDNN's graph API, made from tables of attributes and read. Private to
// cudnn_graph.c and cudnn_descriptor.c. `name` and `what` say in an error what for and which.
#ifndef TRAINER_CUDA_CUDNN_DESCRIPTOR_H
#define TRAINER_CUDA_CUDNN_DESCRIPTOR_H

#include "formats/status.h"

#include <cudnn_graph.h>

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

struct cudnn_attribute {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    const void *values;
};

enum status cudnn_make(cudnnBackendDescriptor_t *out, cudnnBackendDescriptorType_t type,
                       const struct cudnn_attribute *attributes, size_t count, const char *name,
                       const char *what, struct error *error);

void cudnn_drop_all(cudnnBackendDescriptor_t *descriptors, size_t count);

// What an attribute that holds descriptors points to: at most `capacity` of `type`, which the
// caller drops.
enum status cudnn_take(cudnnBackendDescriptor_t from, cudnnBackendAttributeName_t attribute,
                       cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out,
                       size_t capacity, size_t *count, const char *name, const char *what,
                       struct error *error);

enum status cudnn_take_number(cudnnBackendDescriptor_t from, cudnnBackendAttributeName_t attribute,
                              cudnnBackendAttributeType_t type, int64_t *number, const char *name,
                              const char *what, struct error *error);

// A text attribute, malloc'ed.
enum status cudnn_take_text(cudnnBackendDescriptor_t from, cudnnBackendAttributeName_t attribute,
                            char **text, const char *name, const char *what, struct error *error);

#endif
