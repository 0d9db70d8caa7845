// TensorBoard's event file of a run, beside metrics.jsonl: the same figures as scalars.
//
// The file follows the log: each line of metrics.jsonl becomes one event, and what could not be
// written is made up from the log later. So it promises what the log promises, and is never the
// place where something is remembered.
//
// A session writes a file of its own, from the log's first line on, and then removes the one of the
// session before: whoever reads the directory sees one curve without overlap. A TensorBoard that
// is watching meets a session start at step 0, which supersedes what it has read.
//
// Tags: train/KEY for the figures of a line, eval/KEY for those of a probe, time/KEY for its
// timing.
#ifndef TRAINER_RUN_EVENTS_H
#define TRAINER_RUN_EVENTS_H

#include "formats/status.h"

struct events;

// For the log at `log` (RUN/metrics.jsonl); nothing is written yet.
enum status events_open(struct events **out, const char *log, struct error *error);
void events_close(struct events **events); // accepts a pointer to NULL

// Takes in what the log's first `length` bytes, which are whole lines, have gained since the last
// call. After a failure the next call begins where this one did.
enum status events_follow(struct events *events, uint64_t length, struct error *error);

#endif
