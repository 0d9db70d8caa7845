// What an ablation is: a base, rows that differ from it, seeds, and what is measured of every run.
//
// A plan is read from a YAML file (`byol ablate --help` explains it) and is complete and checked:
// every row has its resolved config. A row's run with a seed lives in OUTPUT/SLUG/seed-N.
#ifndef TOOLS_ABLATE_H
#define TOOLS_ABLATE_H

#include "trainer/run/config.h"
#include "trainer/run/directory.h"

#define ABLATE_PATH     400
#define ABLATE_NAME     128
#define ABLATE_ROWS     1000u // of a plan, the grid of its axes included
#define ABLATE_SEEDS    100u
#define ABLATE_MEASURES 16u

enum ablate_probe { ABLATE_KNN, ABLATE_LINEAR };
#define ABLATE_PROBE_CHOICES "knn|linear"

// Of `byol eval`; 0 and "" leave its defaults.
struct ablate_measure {
    int probe; // enum ablate_probe
    char name[32];
    char train[ABLATE_PATH], test[ABLATE_PATH]; // "" = the plan's
    char convention[32];
    int64_t k, epochs, batch;
    double temperature, learning_rate;
    bool cached;
};

// "key=value", and where it stands.
struct ablate_setting {
    char *text; // owned
    size_t line;
};

struct ablate_settings {
    struct ablate_setting *item; // owned
    size_t count;
};

struct ablate_row {
    char name[ABLATE_NAME], slug[ABLATE_NAME];
    size_t line;
    struct ablate_settings set;
    double paper, paper_sd;      // NaN without
    char waits_for[ABLATE_NAME]; // what the program lacks: shown, not run; "" = can run
    struct run_config config;    // resolved, with the first seed
};

struct ablate_plan {
    char path[ABLATE_PATH], title[ABLATE_NAME], paper_is[ABLATE_NAME];
    char recipe[ABLATE_PATH]; // a built-in's name or a file
    char data[ABLATE_PATH], train[ABLATE_PATH], test[ABLATE_PATH];
    uint64_t data_id;           // of the dataset at `data`; 0: not looked at, any run's will do
    struct ablate_settings set; // of the base
    struct ablate_row *rows;
    size_t row_count;
    int64_t seeds[ABLATE_SEEDS];
    size_t seed_count;
    struct ablate_measure measures[ABLATE_MEASURES];
    size_t measure_count;
};

// What the command line adds: paths win over the file's, assignments stand between base and rows.
struct ablate_overrides {
    const char *data, *train, *test;
    const char *const *set;
    size_t set_count;
};

// STATUS_CONFIG names the line and, for a misspelt key, the nearest one. To be freed also after a
// failure.
enum status ablate_plan_read(struct ablate_plan *plan, const char *path,
                             const struct ablate_overrides *overrides, struct error *error);
void ablate_plan_free(struct ablate_plan *plan);

// Line breaks and other control characters would break tables, command lines and terminals.
bool ablate_plain_text(const char *text);

// OUTPUT/SLUG/seed-N into `path` (RUN_PATH bytes); STATUS_LIMIT when it does not fit.
enum status ablate_run_path(const char *output, const struct ablate_row *row, int64_t seed,
                            char *path, struct error *error);

#endif
