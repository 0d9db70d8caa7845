// What carries bytes between ranks. Private to trainer/comm.
#ifndef TRAINER_COMM_COMM_INTERNAL_H
#define TRAINER_COMM_COMM_INTERNAL_H

#include "trainer/comm/comm.h"

// Blocks of one process for one other are at most COMM_GATHER_BYTES.
struct comm_transport {
    // all[r] = mine of rank r
    enum status (*gather)(struct comm *comm, const void *mine, size_t bytes, void *all);
    // to[r] = what rank r has for this one: its from[this rank]
    enum status (*exchange)(struct comm *comm, const void *from, size_t bytes, void *to);
    // Why the last call failed.
    const char *(*reason)(const struct comm *comm);
    void (*close)(struct comm *comm); // leaves the struct, which is one malloc'ed block
    void (*abort)(struct comm *comm, int code);
};

// Every transport begins with this.
struct comm {
    const struct comm_transport *transport;
    unsigned rank, ranks, sharing;
    bool parted;
    struct device_peers peers;
    uint8_t *gathered; // [ranks][COMM_GATHER_BYTES]
    uint8_t *piece;    // [ranks][COMM_GATHER_BYTES]: a piece of a block that is not a whole one
};

#if HAVE_MPI
enum status comm_mpi_open(struct comm **out, struct error *error);
enum status comm_mpi_usable(const char **library, struct error *error);
#endif

#endif
