// The few functions of NCCL that sums need, by name: neither its header nor the library is needed
// to build or to run alone.
#include "trainer/cuda/nccl.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// As nccl.h has declared them since version 2.
struct id {
    char bytes[CUDA_NCCL_ID];
};
enum { SUCCESS = 0 };
enum { FLOAT = 7, DOUBLE = 8 };
enum { SUM = 0 };

static struct {
    bool tried, present;
    int (*new_id)(struct id *id);
    int (*join)(void **out, int ranks, struct id id, int rank);
    int (*leave)(void *group);
    int (*sum)(const void *from, void *to, size_t count, int type, int operation, void *group,
               cudaStream_t stream);
    const char *(*words)(int code);
} library;

struct cuda_nccl {
    void *group;
};

static bool find(void *handle, const char *name, void *function)
{
    void *found = dlsym(handle, name);
    memcpy(function, &found, sizeof found); // a pointer to a function is no pointer to an object
    return found != NULL;
}

bool cuda_nccl_present(void)
{
#if !CUDA_EMULATED // there a stream is not one of CUDA's
    if (!library.tried) {
        library.tried = true;
        void *handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
        library.present = handle != NULL && find(handle, "ncclGetUniqueId", &library.new_id) &&
                          find(handle, "ncclCommInitRank", &library.join) &&
                          find(handle, "ncclCommDestroy", &library.leave) &&
                          find(handle, "ncclAllReduce", &library.sum) &&
                          find(handle, "ncclGetErrorString", &library.words);
    }
#endif
    return library.present;
}

bool cuda_nccl_new_id(char id[CUDA_NCCL_ID])
{
    struct id made;
    if (!cuda_nccl_present() || library.new_id(&made) != SUCCESS) {
        return false;
    }
    memcpy(id, made.bytes, sizeof made.bytes);
    return true;
}

struct cuda_nccl *cuda_nccl_join(const char id[CUDA_NCCL_ID], unsigned ranks, unsigned rank)
{
    struct cuda_nccl *nccl = calloc(1, sizeof *nccl);
    struct id common;
    memcpy(common.bytes, id, sizeof common.bytes);
    if (nccl != NULL && library.join(&nccl->group, (int)ranks, common, (int)rank) != SUCCESS) {
        free(nccl);
        nccl = NULL;
    }
    return nccl;
}

void cuda_nccl_leave(struct cuda_nccl *nccl)
{
    if (nccl != NULL) {
        library.leave(nccl->group);
        free(nccl);
    }
}

static const char *sum(struct cuda_nccl *nccl, void *values, size_t count, int type,
                       cudaStream_t stream)
{
    int code = library.sum(values, values, count, type, SUM, nccl->group, stream);
    return code == SUCCESS ? NULL : library.words(code);
}

const char *cuda_nccl_sum_doubles(struct cuda_nccl *nccl, double *values, size_t count,
                                  cudaStream_t stream)
{
    return sum(nccl, values, count, DOUBLE, stream);
}

const char *cuda_nccl_sum_floats(struct cuda_nccl *nccl, float *values, size_t count,
                                 cudaStream_t stream)
{
    return sum(nccl, values, count, FLOAT, stream);
}
