// The parts of `byol doctor`: cmd_doctor.c reads the options, doctor_machine.c asks the machine,
// doctor_disk.c reads from its disk, doctor_stages.c times the stages of a run with what `byol
// bench` measures with, doctor_report.c tells.
#ifndef TOOLS_DOCTOR_H
#define TOOLS_DOCTOR_H

#include "formats/dataset.h"
#include "trainer/run/config.h"

#define DOCTOR_WORDS   640 // a path and a reason
#define DOCTOR_DEVICES 4

// A part that may be missing: in words what it is, or why it cannot be used.
struct doctor_part {
    bool usable;
    char words[DOCTOR_WORDS];
};

struct doctor_device {
    const char *name;
    struct doctor_part part;
};

struct doctor_machine {
    char processor[128];
    long cores;         // online
    int cores_allowed;  // to this process
    double cores_quota; // of its control group; 0 = no limit
    double load; // average of the last minute, before anything is measured; negative = unknown
    uint64_t memory, memory_free; // bytes; the control group's limit counts
    struct doctor_part uring, mpi;
    struct doctor_device device[DOCTOR_DEVICES];
    size_t devices;
};

void doctor_machine(struct doctor_machine *machine);

// What reading at random gives, as the loader reads: many reads in flight, through io_uring where
// that works.
struct doctor_disk {
    struct doctor_part part; // words: which files were read, or why none were
    bool direct;             // past the page cache; else the cache may have answered
    uint32_t piece;          // bytes of a read
    double bytes_per_second;
};

// From the dataset's files; without one from a nameless file that is written for it in the current
// directory. Takes about a second.
void doctor_disk(struct doctor_disk *disk, const struct dataset *dataset);

enum doctor_stage {
    DOCTOR_DISK,
    DOCTOR_DECODE,
    DOCTOR_AUGMENT,
    DOCTOR_STEP,
    DOCTOR_STAGES,
};
extern const char *const doctor_stage_names[DOCTOR_STAGES];

struct doctor_run {
    struct run_config config;
    bool made_up; // images drawn for this
    // What the dataset is.
    uint64_t images, stored_bytes; // of all records
    double recoded;                // share of the images
    // Pairs a second of each stage by itself, on all cores; 0: not measured.
    double rate[DOCTOR_STAGES];
    double loader;        // disk (through the page cache), decoding and augmenting together
    double together;      // what is to be expected of the run
    uint32_t step_batch;  // that the step was timed with
    uint64_t step_memory; // bytes that the whole batch needs on the device
    bool shared;          // the device computes on the loader's cores
    bool cached;          // the dataset fits into memory: the disk matters in the first pass only
    enum doctor_stage limit;
};

// `directory` NULL: made-up images.
enum status doctor_measure(struct doctor_run *run, struct doctor_disk *disk,
                           const struct doctor_machine *machine, const char *directory,
                           struct error *error);

void doctor_print_text(const struct doctor_machine *machine, const struct doctor_disk *disk,
                       const struct doctor_run *run); // run NULL: not measured
void doctor_print_json(const struct doctor_machine *machine, const struct doctor_disk *disk,
                       const struct doctor_run *run);

#endif
