// MPI as the transport. Its library is opened at run time: mpi.h gives the types, and the Makefile
// the name of the library that belongs to it (MPI_LIBRARY).
#include "trainer/comm/comm_internal.h"

#include <dlfcn.h>
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define FUNCTIONS(DO)                                                                              \
    DO(Init_thread)                                                                                \
    DO(Finalize)                                                                                   \
    DO(Abort)                                                                                      \
    DO(Comm_rank)                                                                                  \
    DO(Comm_size) DO(Comm_set_errhandler) DO(Iallgather) DO(Ialltoall) DO(Test) DO(Error_string)

struct comm_mpi {
    struct comm comm;
    void *library;
    MPI_Comm world;
    MPI_Datatype byte;
    MPI_Errhandler errors_return;
    char reason[MPI_MAX_ERROR_STRING];
#define FIELD(name) __typeof__(MPI_##name) *name; // NOLINT(bugprone-macro-parentheses)
    FUNCTIONS(FIELD)
#undef FIELD
};

// --- calls -----------------------------------------------------------------------------------

// How long a wait keeps the processor warm before it begins to sleep, and for how long at a time.
#define YIELD_SECONDS 1e-3
#define SLEEP_NANOS   100000

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static enum status check(struct comm_mpi *mpi, int code)
{
    int len;
    if (code == MPI_SUCCESS) {
        return STATUS_OK;
    }
    if (mpi->Error_string(code, mpi->reason, &len) != MPI_SUCCESS) {
        snprintf(mpi->reason, sizeof mpi->reason, "MPI error %d", code);
    }
    return STATUS_DEVICE;
}

// MPI's own waits spin; threads that load images share these cores.
static enum status finish(struct comm_mpi *mpi, MPI_Request *request)
{
    int done = 0;
    double start = now();
    for (;;) {
        int code = mpi->Test(request, &done, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS || done) {
            return check(mpi, code);
        }
        if (now() - start < YIELD_SECONDS) {
            sched_yield();
        } else {
            nanosleep(&(struct timespec){.tv_nsec = SLEEP_NANOS}, NULL);
        }
    }
}

static enum status mpi_gather(struct comm *comm, const void *mine, size_t bytes, void *all)
{
    struct comm_mpi *mpi = (struct comm_mpi *)comm;
    MPI_Request request;
    int code = mpi->Iallgather(mine, (int)bytes, mpi->byte, all, (int)bytes, mpi->byte, mpi->world,
                               &request);
    return code == MPI_SUCCESS ? finish(mpi, &request) : check(mpi, code);
}

static enum status mpi_exchange(struct comm *comm, const void *from, size_t bytes, void *to)
{
    struct comm_mpi *mpi = (struct comm_mpi *)comm;
    MPI_Request request;
    int code = mpi->Ialltoall(from, (int)bytes, mpi->byte, to, (int)bytes, mpi->byte, mpi->world,
                              &request);
    return code == MPI_SUCCESS ? finish(mpi, &request) : check(mpi, code);
}

static const char *mpi_reason(const struct comm *comm)
{
    return ((const struct comm_mpi *)comm)->reason;
}

// The library stays open: it has handlers that run when the process ends.
static void mpi_close(struct comm *comm)
{
    struct comm_mpi *mpi = (struct comm_mpi *)comm;
    mpi->Finalize();
}

static void mpi_abort(struct comm *comm, int code)
{
    struct comm_mpi *mpi = (struct comm_mpi *)comm;
    mpi->Abort(mpi->world, code);
    _exit(code);
}

static const struct comm_transport transport = {.gather = mpi_gather,
                                                .exchange = mpi_exchange,
                                                .reason = mpi_reason,
                                                .close = mpi_close,
                                                .abort = mpi_abort};

// --- opening ---------------------------------------------------------------------------------

// Constants are objects of the library in Open MPI, numbers elsewhere.
static void find_constants(struct comm_mpi *mpi)
{
#ifdef OPEN_MPI
    mpi->world = dlsym(mpi->library, "ompi_mpi_comm_world");
    mpi->byte = dlsym(mpi->library, "ompi_mpi_byte");
    mpi->errors_return = dlsym(mpi->library, "ompi_mpi_errors_return");
#else
    mpi->world = MPI_COMM_WORLD;
    mpi->byte = MPI_BYTE;
    mpi->errors_return = MPI_ERRORS_RETURN;
#endif
}

static bool find_functions(struct comm_mpi *mpi)
{
    // Global: parts of the library that it opens by itself look for its symbols.
    mpi->library = dlopen(MPI_LIBRARY, RTLD_NOW | RTLD_GLOBAL);
    if (mpi->library == NULL) {
        return false;
    }
    find_constants(mpi);
#define FIND(name)                                                                                 \
    mpi->name = (__typeof__(MPI_##name) *)dlsym(mpi->library, "MPI_" #name);                       \
    if (mpi->name == NULL) {                                                                       \
        return false;                                                                              \
    }
    FUNCTIONS(FIND)
#undef FIND
    return true;
}

static enum status begin(struct comm_mpi *mpi)
{
    int provided, rank = 0, ranks = 0;
    enum status status = check(mpi, mpi->Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    if (status == STATUS_OK) {
        status = check(mpi, mpi->Comm_set_errhandler(mpi->world, mpi->errors_return));
    }
    if (status == STATUS_OK) {
        status = check(mpi, mpi->Comm_rank(mpi->world, &rank));
    }
    if (status == STATUS_OK) {
        status = check(mpi, mpi->Comm_size(mpi->world, &ranks));
    }
    mpi->comm.rank = (unsigned)rank;
    mpi->comm.ranks = (unsigned)ranks;
    return status;
}

enum status comm_mpi_usable(const char **library, struct error *error)
{
    *library = MPI_LIBRARY;
    void *opened = dlopen(MPI_LIBRARY, RTLD_LAZY | RTLD_LOCAL);
    if (opened == NULL) {
        return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE, "%s", dlerror());
    }
    dlclose(opened);
    return STATUS_OK;
}

enum status comm_mpi_open(struct comm **out, struct error *error)
{
    *out = NULL;
    struct comm_mpi *mpi = calloc(1, sizeof *mpi);
    if (mpi == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for MPI");
    }
    mpi->comm.transport = &transport;
    enum status status;
    if (!find_functions(mpi)) {
        const char *why = dlerror();
        status = error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                           "started as one of several processes, but MPI cannot be used here: %s",
                           why != NULL ? why : MPI_LIBRARY " lacks functions");
    } else {
        status = begin(mpi);
        if (status != STATUS_OK) {
            error_set(error, status, NULL, NOWHERE, NOWHERE, "MPI does not start: %s", mpi->reason);
        }
    }
    if (status != STATUS_OK) {
        free(mpi);
        return status;
    }
    *out = &mpi->comm;
    return STATUS_OK;
}
