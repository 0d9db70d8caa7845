// Everything but the transport: sums in the order of ranks, agreeing, and what the launcher says.
#include "trainer/comm/comm_internal.h"

#include "formats/crc32c.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOST_BYTES 256

// --- sums ------------------------------------------------------------------------------------

#define SUM_VALUES   (COMM_GATHER_BYTES / sizeof(double))
#define BLOCK_VALUES (COMM_GATHER_BYTES / sizeof(float)) // of one rank in a piece

// Every rank gets all values and adds them up.
static enum status sum_values(void *context, double *values, size_t count)
{
    struct comm *comm = context;
    while (count > 0) {
        size_t len = count < SUM_VALUES ? count : SUM_VALUES;
        const double *all = (const double *)(const void *)comm->gathered;
        enum status status =
            comm->transport->gather(comm, values, len * sizeof *values, comm->gathered);
        if (status != STATUS_OK) {
            return status;
        }
        memcpy(values, all, len * sizeof *values);
        for (unsigned rank = 1; rank < comm->ranks; rank++) {
            for (size_t i = 0; i < len; i++) {
                values[i] += all[rank * len + i];
            }
        }
        values += len;
        count -= len;
    }
    return STATUS_OK;
}

// The sum of all ranks' parts, into the first.
static void add_parts(float *parts, unsigned ranks, size_t count)
{
    for (unsigned rank = 1; rank < ranks; rank++) {
        const float *part = parts + rank * count;
#pragma omp simd
        for (size_t i = 0; i < count; i++) {
            parts[i] += part[i];
        }
    }
}

// A piece of `part` values for each rank: everybody gets the parts of one rank from all, adds them
// up, and gives the sum to all.
static enum status sum_piece(struct comm *comm, float *values, size_t part)
{
    float *parts = (float *)(void *)comm->gathered;
    enum status status =
        comm->transport->exchange(comm, values, part * sizeof *values, comm->gathered);
    if (status != STATUS_OK) {
        return status;
    }
    add_parts(parts, comm->ranks, part);
    return comm->transport->gather(comm, parts, part * sizeof *values, values);
}

static enum status sum_block(void *context, float *values, uint64_t count)
{
    struct comm *comm = context;
    size_t whole = (size_t)comm->ranks * BLOCK_VALUES;
    for (; count >= whole; values += whole, count -= whole) {
        enum status status = sum_piece(comm, values, BLOCK_VALUES);
        if (status != STATUS_OK) {
            return status;
        }
    }
    if (count == 0) {
        return STATUS_OK;
    }
    size_t part = (count + comm->ranks - 1) / comm->ranks, bytes = count * sizeof *values;
    memcpy(comm->piece, values, bytes);
    memset(comm->piece + bytes, 0, part * comm->ranks * sizeof *values - bytes);
    enum status status = sum_piece(comm, (float *)(void *)comm->piece, part);
    memcpy(values, comm->piece, bytes);
    return status;
}

// --- telling each other ----------------------------------------------------------------------

static enum status failed(struct comm *comm, enum status status, struct error *error)
{
    comm->parted = true;
    return error_set(error, status, NULL, NOWHERE, NOWHERE, "ranks cannot reach each other: %s",
                     comm->transport->reason(comm));
}

enum status comm_gather(struct comm *comm, const void *mine, size_t bytes, void *all,
                        struct error *error)
{
    if (comm == NULL) {
        memcpy(all, mine, bytes);
        return STATUS_OK;
    }
    enum status status = comm->transport->gather(comm, mine, bytes, all);
    return status == STATUS_OK ? STATUS_OK : failed(comm, status, error);
}

enum status comm_share(struct comm *comm, void *bytes, size_t size, struct error *error)
{
    if (comm == NULL) {
        return STATUS_OK;
    }
    enum status status = comm_gather(comm, bytes, size, comm->gathered, error);
    if (status == STATUS_OK) {
        memcpy(bytes, comm->gathered, size);
    }
    return status;
}

// The error of rank `from` comes to all, who know that it has one.
static enum status share_error(struct comm *comm, unsigned from, enum status status,
                               struct error *error)
{
    struct error mine = {0};
    if (error != NULL && comm->rank == from) {
        mine = *error;
    }
    enum status reached = comm_gather(comm, &mine, sizeof mine, comm->gathered, error);
    if (reached != STATUS_OK) {
        return reached;
    }
    memcpy(&mine, comm->gathered + from * sizeof mine, sizeof mine);
    char origin[32] = "";
    if (from > 0) {
        snprintf(origin, sizeof origin, "rank %u: ", from);
    }
    return error_set(error, status, mine.path, mine.offset, mine.record, "%s%s", origin,
                     mine.reason);
}

enum status comm_agree(struct comm *comm, enum status status, unsigned *flags, struct error *error)
{
    if (comm == NULL) {
        return status;
    }
    const unsigned mine[2] = {(unsigned)status, flags != NULL ? *flags : 0};
    enum status reached = comm_gather(comm, mine, sizeof mine, comm->gathered, error);
    if (reached != STATUS_OK) {
        return reached;
    }
    unsigned from = comm->ranks;
    for (unsigned rank = comm->ranks; rank-- > 0;) {
        unsigned other[2];
        memcpy(other, comm->gathered + rank * sizeof other, sizeof other);
        if (other[0] != STATUS_OK) {
            from = rank;
            status = (enum status)other[0];
        }
        if (flags != NULL) {
            *flags |= other[1];
        }
    }
    return from < comm->ranks ? share_error(comm, from, status, error) : STATUS_OK;
}

enum status comm_share_text(struct comm *comm, char **text, struct error *error)
{
    uint64_t size = comm_rank(comm) == 0 && *text != NULL ? strlen(*text) + 1 : 0;
    enum status status = comm_share(comm, &size, sizeof size, error);
    if (status != STATUS_OK || comm == NULL) {
        return status;
    }
    if (comm->rank > 0) {
        *text = size > 0 ? malloc(size) : NULL;
        if (*text == NULL && size > 0) {
            status = error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                               "no memory for a text of %" PRIu64 " bytes", size);
        }
    }
    status = comm_agree(comm, status, NULL, error);
    if (*text == NULL) { // nowhere, or all know why
        return status;
    }
    for (uint64_t at = 0; at < size && status == STATUS_OK; at += COMM_GATHER_BYTES) {
        uint64_t left = size - at;
        size_t bytes = left < COMM_GATHER_BYTES ? (size_t)left : COMM_GATHER_BYTES;
        status = comm_share(comm, *text + at, bytes, error);
    }
    return status;
}

void comm_part(struct comm *comm)
{
    if (comm != NULL) {
        comm->parted = true;
    }
}

bool comm_together(const struct comm *comm)
{
    return comm == NULL || !comm->parted;
}

enum status comm_same(struct comm *comm, uint64_t value, const char *what, struct error *error)
{
    enum status status = STATUS_OK;
    uint64_t first = value;
    struct error own = {0};
    if (comm_share(comm, &first, sizeof first, &own) != STATUS_OK) {
        return error_set(error, own.status, NULL, NOWHERE, NOWHERE, "%s", own.reason);
    }
    if (first != value) {
        status = error_set(&own, STATUS_DEVICE, NULL, NOWHERE, NOWHERE,
                           "%s differ from those of rank 0", what);
    }
    status = comm_agree(comm, status, NULL, &own);
    return status == STATUS_OK ? STATUS_OK
                               : error_set(error, status, NULL, NOWHERE, NOWHERE, "%s", own.reason);
}

// --- who we are ------------------------------------------------------------------------------

unsigned comm_rank(const struct comm *comm)
{
    return comm == NULL ? 0 : comm->rank;
}

unsigned comm_ranks(const struct comm *comm)
{
    return comm == NULL ? 1 : comm->ranks;
}

unsigned comm_sharing(const struct comm *comm)
{
    return comm == NULL ? 1 : comm->sharing;
}

const struct device_peers *comm_peers(const struct comm *comm)
{
    return comm == NULL ? NULL : &comm->peers;
}

// Ranks with the same value have the same cores.
static uint64_t cores_value(void)
{
    char host[HOST_BYTES] = "";
    cpu_set_t cores;
    CPU_ZERO(&cores);
    gethostname(host, sizeof host - 1);
    sched_getaffinity(0, sizeof cores, &cores);
    return (uint64_t)crc32c(0, host, strlen(host)) << 32 | crc32c(0, &cores, sizeof cores);
}

static enum status count_sharing(struct comm *comm, struct error *error)
{
    uint64_t own = cores_value(), other;
    enum status status = comm_gather(comm, &own, sizeof own, comm->gathered, error);
    comm->sharing = 0;
    for (unsigned rank = 0; rank < comm->ranks && status == STATUS_OK; rank++) {
        memcpy(&other, comm->gathered + rank * sizeof other, sizeof other);
        comm->sharing += other == own;
    }
    return status;
}

// --- opening ---------------------------------------------------------------------------------

// How many processes a launcher says it started; NULL when there is none or it does not say.
static const char *launched_size(void)
{
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    return size != NULL ? size : getenv("PMI_SIZE");
}

static bool launched(void)
{
    const char *size = launched_size();
    return size != NULL ? strcmp(size, "1") != 0
                        : getenv("PMIX_RANK") != NULL || getenv("PMI_RANK") != NULL;
}

// Behind the launcher of another MPI, each process believes that it is alone.
static enum status check_size(const struct comm *comm, struct error *error)
{
    const char *size = launched_size();
    if (size == NULL || strtoul(size, NULL, 10) == comm->ranks) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                     "the launcher started %.16s processes, but MPI knows of %u: use the launcher "
                     "of the MPI that this program was built with",
                     size, comm->ranks);
}

static enum status open_transport(struct comm **out, struct error *error)
{
#if HAVE_MPI
    return comm_mpi_open(out, error);
#else
    *out = NULL;
    return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                     "started as one of several processes, but this program was built without MPI: "
                     "install it (Debian: libopenmpi-dev) and build again");
#endif
}

enum status comm_usable(const char **library, struct error *error)
{
#if HAVE_MPI
    return comm_mpi_usable(library, error);
#else
    *library = NULL;
    return error_set(error, STATUS_UNSUPPORTED, NULL, NOWHERE, NOWHERE,
                     "built without MPI: install it (Debian: libopenmpi-dev) and build again");
#endif
}

static void release(struct comm *comm)
{
    free(comm->gathered);
    free(comm->piece);
    free(comm);
}

static enum status prepare(struct comm *comm, struct error *error)
{
    size_t bytes = (size_t)comm->ranks * COMM_GATHER_BYTES;
    comm->gathered = aligned_alloc(64, bytes);
    comm->piece = aligned_alloc(64, bytes);
    if (comm->gathered == NULL || comm->piece == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory to talk to %u ranks", comm->ranks);
    }
    comm->peers = (struct device_peers){.count = comm->ranks,
                                        .rank = comm->rank,
                                        .context = comm,
                                        .sum = sum_values,
                                        .sum_block = sum_block};
    return count_sharing(comm, error);
}

enum status comm_open(struct comm **out, struct error *error)
{
    *out = NULL;
    if (!launched()) {
        return STATUS_OK;
    }
    enum status status = open_transport(out, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = check_size(*out, error);
    if (status == STATUS_OK) {
        status = prepare(*out, error);
    }
    if (status != STATUS_OK) { // it stays unfinished: when this process ends, so do the others
        release(*out);
        *out = NULL;
    }
    return status;
}

void comm_close(struct comm **comm)
{
    if (*comm == NULL) {
        return;
    }
    uint8_t here = 0;
    (*comm)->transport->gather(*comm, &here, sizeof here, (*comm)->gathered);
    (*comm)->transport->close(*comm);
    release(*comm);
    *comm = NULL;
}

void comm_abort(struct comm *comm, int code)
{
    if (comm != NULL) {
        comm->transport->abort(comm, code);
    }
}
