// Runs the program (BYOL_PROGRAM, default build/byol) as a person would, and keeps what it printed.
#ifndef TESTS_SUPPORT_PROGRAM_H
#define TESTS_SUPPORT_PROGRAM_H

// A directory for one test, under TMPDIR or /tmp.
struct scratch {
    char path[256];
};
void scratch_make(struct scratch *scratch);
void scratch_remove(struct scratch *scratch); // with everything in it
// DIR/NAME; valid for the next three calls too.
const char *scratch_path(const struct scratch *scratch, const char *name);
// Runs a line of shell with $DIR and $BYOL, silently; returns its exit code.
int scratch_shell(const struct scratch *scratch, const char *line);

struct program_result {
    int code; // exit code; 128 + signal when one ended it
    char *out, *err;
};

// `arguments` is a piece of shell after the program's name, so quoting, redirection and variables
// work; $DIR is the scratch directory, $BYOL the program. Fails the test when it cannot be run at
// all.
void program_run(struct program_result *result, const struct scratch *scratch,
                 const char *arguments);
// The same behind a launcher, such as "mpirun -n 2": a piece of shell before the program's name.
void program_run_under(struct program_result *result, const struct scratch *scratch,
                       const char *launcher, const char *arguments);
void program_free(struct program_result *result);

// Runs, fails the test unless the exit code is `code` and `text` (unless NULL) is found in stdout
// (code 0) or stderr (any other code).
void program_expect(const struct scratch *scratch, int code, const char *text,
                    const char *arguments);

// Runs, expects success, returns a number of the JSON object on stdout; fails the test without one.
double program_number(const struct scratch *scratch, const char *key, const char *arguments);

// The same for a string, copied into `text`.
void program_string(const struct scratch *scratch, const char *key, char *text, unsigned capacity,
                    const char *arguments);

#endif
