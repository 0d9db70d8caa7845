// What an ablation keeps of a run beside the run's own files, and the commands that make it.
//
//   OUTPUT/ROW/seed-N/trained.json       what `byol pretrain --json` said when it had finished
//   OUTPUT/ROW/seed-N/measure-NAME.json  what `byol eval --json` said, and how it was asked
//   OUTPUT/ROW/seed-N/failure.json       why the last attempt failed; gone when one succeeds
//   OUTPUT/ROW/seed-N/ablate.log         what the commands printed to stderr
#ifndef TOOLS_ABLATE_STORE_H
#define TOOLS_ABLATE_STORE_H

#include "tools/ablate.h"

#include <jansson.h>
#include <stdio.h>

struct ablate_state {
    bool trained, started; // `started`: a run is there, whatever became of it
    double loss, seconds;  // of the training, when trained
    struct {
        bool done;
        double top1, top5; // percent
    } measured[ABLATE_MEASURES];
    char failure[300]; // "" = none
};

// What is on disk. STATUS_CONFIG when the run there was made with other settings than the row says,
// of other data, or has made more steps than the row wants.
enum status ablate_state_read(const struct ablate_plan *plan, const struct ablate_row *row,
                              int64_t seed, const char *directory, struct ablate_state *state,
                              struct error *error);

enum status ablate_store_trained(const char *directory, json_t *result, struct error *error);
enum status ablate_store_measure(const char *directory, const struct ablate_plan *plan,
                                 size_t measure, json_t *result, struct error *error);
// NULL takes the failure back.
enum status ablate_store_failure(const char *directory, const char *reason, struct error *error);

// --- commands ------------------------------------------------------------------------------------

#define ABLATE_ARGUMENTS 600

struct ablate_command {
    char *item[ABLATE_ARGUMENTS + 1]; // owned, NULL-terminated; item[0] is "byol"
    size_t count;
    bool failed; // there was no memory, or no room
};

// `threads` 0 leaves the row's setting.
enum status ablate_command_train(struct ablate_command *command, const struct ablate_plan *plan,
                                 const struct ablate_row *row,
                                 const struct ablate_overrides *overrides, int64_t seed,
                                 int64_t threads, const char *directory, struct error *error);
enum status ablate_command_measure(struct ablate_command *command, const struct ablate_plan *plan,
                                   size_t measure, int64_t threads, const char *directory,
                                   struct error *error);
void ablate_command_add(struct ablate_command *command, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void ablate_command_free(struct ablate_command *command);

void ablate_put_quoted(FILE *stream, const char *text); // as one word for a shell
// As a line for a shell (malloc'ed), or NULL.
char *ablate_command_text(const struct ablate_command *command);

#endif
