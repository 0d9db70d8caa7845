// `byol convert`: image collections to a dataset. Here are its words; convert_run.c does it.
#include "formats/file.h"
#include "formats/limits.h"
#include "tools/convert.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "Usage: byol convert SOURCE... -o DATASET [options]\n"
    "\n"
    "Turns image collections into a dataset that training can stream. What a SOURCE is, is found\n"
    "out by its content: a folder of JPEG and PNG files, a tar of them (plain, .gz, .zst, .xz or\n"
    "bz2), or another container ('byol inspect SOURCE' says what it is). Several make one "
    "dataset;\n"
    "names may have braces: 'train-{000000..001281}.tar' '{a,b}.tar'.\n"
    "\n"
    "  pictures/cat/1.jpg  pictures/dog/2.jpg    folders are classes: labels in order of name\n"
    "  pictures/1.jpg      pictures/2.jpg        flat: no labels\n"
    "\n"
    "Directories that all images share are dropped; the first one left is the class. Sources that\n"
    "number their images keep their numbers. Files that are no images are passed over. Every "
    "image\n"
    "is decoded once, so training meets no bad one.\n"
    "\n"
    "Options:\n"
    "  -o, --output DATASET   the directory to make; it appears when it is complete\n"
    "  --store lmdb|shards    lmdb: one file, opens with any LMDB binding (default);\n"
    "                         shards: .tar.zst files that tar, zstd and WebDataset understand\n"
    "  --shard-size MIB       start a new shard at about this size (256)\n"
    "  --bad fatal|skip       at a damaged image: stop (default), or leave it out and list it\n"
    "  --recode               store JPEGs in a coding of the same size that training decodes\n"
    "                         several times as fast; each one is proven to give the same pixels\n"
    "                         (else it stays as it is), and its file comes back by\n"
    "                         'byol inspect DATASET --extract DIR'\n"
    "  --resize short=N[,quality=Q]\n"
    "                         scale what is larger down to a short side of N pixels, as JPEGs of\n"
    "                         quality Q (90). The dataset is marked 'not exact'\n"
    "  --verify, --no-verify  decode every image (the default), or read the headers only\n"
    "  --threads N            0 = one per core (0); the bytes do not depend on it\n"
    "  --force                replace a dataset that is there already\n"
    "  --restart              begin anew where a killed conversion could be gone on with\n"
    "  --json                 print the result as JSON\n"
    "  --quiet                no progress line\n"
    "\n"
    "Which images, and their labels:\n"
    "  --labels FILE          'NAME LABEL' or 'NAME CLASS' a line, or only a label a line: those\n"
    "                         of the images in byte order of their names\n"
    "                         (or the development kit of ILSVRC2012, as it is)\n"
    "  --labels-from N        the labels in FILE count from N (0)\n"
    "  --classes FILE         names of the classes, one a line, in label order\n"
    "  --only FILE            only the images that FILE names, one a line; a name may lack its\n"
    "                         folders\n"
    "  --without FILE         all but those\n"
    "  --limit N              of them the first N\n"
    "  --split NAME=RULE,...  several datasets, DATASET/NAME each. A rule takes from what those\n"
    "                         before it left: first:N last:N random:N 10% rest, or tfds:N, the\n"
    "                         first N in TensorFlow Datasets' order of ImageNet's training set\n"
    "  --seed N               of random rules (0)\n"
    "\n"
    "A conversion that was stopped (Ctrl-C) or killed leaves DATASET.partial: the same command\n"
    "goes on from there (lmdb: unless the machine was restarted) and ends with the same bytes.\n"
    "'mpirun -n N byol convert ... --store shards' shares the images among processes and\n"
    "machines; to go on it wants the same N.\n"
    "\n"
    "Examples:\n"
    "  byol convert pictures -o pictures.byol\n"
    "  byol convert train.tar.zst -o train --store shards --bad skip\n"
    "  byol convert pictures -o pictures.byol --recode\n"
    "  byol convert ILSVRC2012_img_val.tar -o val --labels ILSVRC2012_devkit_t12.tar.gz\n"
    "  byol convert ILSVRC2012_img_train.tar -o imagenet --split val=tfds:10000,train=rest\n"
    "  byol convert ILSVRC2012_img_train.tar -o one-percent --only 1percent.txt\n"
    "  byol inspect train --verify\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

// What the person typed, as far as it is words.
struct words {
    const char *store, *bad, *resize;
    bool verify;
    struct option_list sources;
};

static int expand_sources(struct convert *convert, const struct words *words)
{
    struct error error;
    for (size_t i = 0; i < words->sources.count; i++) {
        if (braces_expand(&convert->sources, words->sources.item[i], &error) != STATUS_OK) {
            return command_misused(&command_convert, "'%s' %s", words->sources.item[i],
                                   error.reason);
        }
    }
    return EXIT_OK;
}

// Fills the fields that come as words; EXIT_OK or EXIT_USAGE.
static int read_words(struct convert *convert, const struct words *words)
{
    struct convert_options *options = &convert->options;
    bool lmdb = strcmp(words->store, "lmdb") == 0;
    if (!lmdb && strcmp(words->store, "shards") != 0) {
        return command_misused(&command_convert, "--store is 'lmdb' or 'shards', not '%s'",
                               words->store);
    }
    options->skip_bad = strcmp(words->bad, "skip") == 0;
    if (!options->skip_bad && strcmp(words->bad, "fatal") != 0) {
        return command_misused(&command_convert, "--bad is 'fatal' or 'skip', not '%s'",
                               words->bad);
    }
    if (words->verify && options->no_verify) {
        return command_misused(&command_convert, "--verify and --no-verify exclude each other");
    }
    if (words->resize != NULL && !convert_resize_parse(words->resize, &options->resize)) {
        return command_misused(&command_convert,
                               "--resize is short=N or short=N,quality=Q, not "
                               "'%s'",
                               words->resize);
    }
    if (words->sources.count == 0) {
        return command_misused(&command_convert, "wants at least one folder or tar to read");
    }
    if (options->output == NULL || options->output[0] == '\0') {
        return command_misused(&command_convert, "wants -o DATASET, the directory to make");
    }
    options->store = lmdb ? DATASET_LMDB : DATASET_SHARDS;
    return expand_sources(convert, words);
}

// The first signal asks for an orderly end; the second is from somebody in a hurry.
static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    if (stopped) {
        _exit(128 + number);
    }
    stopped = 1;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN); // a limit on file sizes shall be an error with words
}

static void say_what_is_kept(const struct convert *convert)
{
    unsigned ranks = comm_ranks(convert->comm);
    for (size_t i = 0; i < convert->output_count; i++) {
        char path[PART_PATH_BYTES], journal[PART_PATH_BYTES + 20];
        snprintf(path, sizeof path, "%s", convert->outputs[i].path);
        if (ranks > 1) {
            convert_part_path(&convert->outputs[i], 0, ranks, path, sizeof path);
        }
        snprintf(journal, sizeof journal, "%s.partial/journal", path);
        if (file_exists(journal)) {
            fprintf(stderr,
                    "byol convert: what was done so far is kept in %s.partial: repeat the "
                    "command to go on\n",
                    path);
        }
    }
}

// Under a launcher the first process speaks.
static int work(struct convert *convert)
{
    struct error error;
    int code = EXIT_OK;
    if (comm_open(&convert->comm, &error) != STATUS_OK) {
        return command_failed(&command_convert, &error, convert->options.json);
    }
    bool speaks = comm_rank(convert->comm) == 0;
    if (comm_ranks(convert->comm) > 1 && convert->options.store != DATASET_SHARDS) {
        code = speaks ? command_misused(&command_convert,
                                        "several processes can only write --store shards")
                      : EXIT_USAGE;
        comm_close(&convert->comm);
        return code;
    }
    bool failed = convert_run(convert, &error) != STATUS_OK;
    if (!failed && speaks && convert->options.json) {
        code = convert_print_json(convert);
    } else if (!failed && speaks) {
        convert_print(convert);
    }
    convert_close_writers(convert);
    if (failed && speaks) {
        code = command_failed(&command_convert, &error, convert->options.json);
        say_what_is_kept(convert);
    } else if (failed) {
        code = EXIT_FAILED;
    }
    comm_close(&convert->comm);
    return code;
}

static int run(int argc, char **argv)
{
    struct convert convert = {.options = {.shard_mib = 256}, .stopped = &stopped};
    struct convert_options *to = &convert.options;
    struct words words = {.store = "lmdb", .bad = "fatal"};
    const struct option options[] = {
        {"output", 'o', OPTION_STRING, &to->output, 0, 0},
        {"store", 0, OPTION_STRING, &words.store, 0, 0},
        {"shard-size", 0, OPTION_INT, &to->shard_mib, 1, (double)(LIMIT_SHARD_BYTES >> 20)},
        {"bad", 0, OPTION_STRING, &words.bad, 0, 0},
        {"recode", 0, OPTION_FLAG, &to->recode, 0, 0},
        {"resize", 0, OPTION_STRING, &words.resize, 0, 0},
        {"verify", 0, OPTION_FLAG, &words.verify, 0, 0},
        {"no-verify", 0, OPTION_FLAG, &to->no_verify, 0, 0},
        {"threads", 0, OPTION_INT, &to->threads, 0, CONVERT_THREADS_MAX},
        {"labels", 0, OPTION_STRING, &to->select.labels, 0, 0},
        {"labels-from", 0, OPTION_INT, &to->select.labels_from, 0, (double)LIMIT_CLASSES},
        {"classes", 0, OPTION_STRING, &to->select.classes, 0, 0},
        {"only", 0, OPTION_STRING, &to->select.only, 0, 0},
        {"without", 0, OPTION_STRING, &to->select.without, 0, 0},
        {"limit", 0, OPTION_INT, &to->select.limit, 1, (double)LIMIT_RECORDS},
        {"split", 0, OPTION_STRING, &to->select.split, 0, 0},
        {"seed", 0, OPTION_INT, &to->select.seed, 0, 9007199254740992.0},
        {"force", 0, OPTION_FLAG, &to->force, 0, 0},
        {"restart", 0, OPTION_FLAG, &to->restart, 0, 0},
        {"json", 0, OPTION_FLAG, &to->json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &to->quiet, 0, 0},
    };
    bool done;
    int code = command_options(&command_convert, argc, argv, options,
                               sizeof options / sizeof *options, &words.sources, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    code = read_words(&convert, &words);
    if (code == EXIT_OK) {
        catch_signals();
        code = work(&convert);
    }
    convert_close(&convert);
    return code;
}

const struct command command_convert = {
    .name = "convert",
    .summary = "images into a dataset",
    .help = help,
    .run = run,
};
