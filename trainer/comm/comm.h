// Processes that train together. A launcher (mpirun, srun) starts `ranks` of them; each calls
// comm_open and from then on all call the same functions in the same order. Everything here gives
// the same bits on every rank and in every run: sums are taken in the order of the ranks, whatever
// arrives first.
//
// A `struct comm *` may be NULL everywhere: one process alone, for which all of this costs nothing.
//
// MPI is optional. The program is not linked with it: its library is opened when a launcher is
// seen, so a program that was started by itself neither needs it nor starts slower.
//
// Errors. What a rank finds out by itself is told with comm_agree, after which all know. A rank
// that fails where the others cannot be told (comm_part) ends the job with comm_abort.
// Waiting yields the processor, and sleeps when it takes long. One thread calls, the one that
// opened.
#ifndef TRAINER_COMM_COMM_H
#define TRAINER_COMM_COMM_H

#include "trainer/device/device.h"

struct comm;

// *out is NULL when no launcher, or one of a single process, started this one. STATUS_UNSUPPORTED
// when there are others but no MPI in this build or on this machine. At most once in a process.
enum status comm_open(struct comm **out, struct error *error);
// Whether processes that a launcher starts could talk here; STATUS_UNSUPPORTED says what is missing.
// *library is MPI's as the loader knows it.
enum status comm_usable(const char **library, struct error *error);
// Waits for all ranks, then leaves. NULL and pointers to NULL are fine.
void comm_close(struct comm **comm);
// Ends all ranks at once, this one with `code`. Does not return unless `comm` is NULL.
void comm_abort(struct comm *comm, int code);

unsigned comm_rank(const struct comm *comm);  // 0 alone
unsigned comm_ranks(const struct comm *comm); // 1 alone
// How many ranks have the very cores of this one (same host, same set of cores), itself included:
// what a number of threads per core is to be divided by.
unsigned comm_sharing(const struct comm *comm);

// What a device needs to look at the batch of all ranks (device->peers). NULL alone.
const struct device_peers *comm_peers(const struct comm *comm);

// all[r] becomes `mine` of rank r, `bytes` each, at most COMM_GATHER_BYTES.
#define COMM_GATHER_BYTES 65536u
enum status comm_gather(struct comm *comm, const void *mine, size_t bytes, void *all,
                        struct error *error);

// `bytes` of rank 0 come to all, at most COMM_GATHER_BYTES.
enum status comm_share(struct comm *comm, void *bytes, size_t size, struct error *error);

// *text of rank 0, of any length or NULL, comes to the others, malloc'ed there.
enum status comm_share_text(struct comm *comm, char **text, struct error *error);

// Every rank brings a status (with the error that explains it) and flags. All leave with the same:
// the status and error of the lowest rank that failed, or STATUS_OK; flags that any rank raised
// (NULL: none). Errors from elsewhere say which rank they are from.
enum status comm_agree(struct comm *comm, enum status status, unsigned *flags, struct error *error);
// This rank has failed where the others cannot be told. From then on it is not together with them,
// as after any failure to reach them: no more calls but comm_abort.
void comm_part(struct comm *comm);
bool comm_together(const struct comm *comm); // true alone

// STATUS_DEVICE on all ranks unless all bring the same value: "WHAT differ from those of rank 0".
enum status comm_same(struct comm *comm, uint64_t value, const char *what, struct error *error);

#endif
