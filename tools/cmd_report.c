// `byol report`: one page that shows what happened in runs.
#include "formats/file.h"
#include "tools/command.h"
#include "tools/json_text.h"
#include "tools/progress.h"
#include "tools/report_page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_RUNS 64

static const char help[] =
    "Usage: byol report RUN... -o REPORT.html [options]\n"
    "\n"
    "Draws one or several runs (see 'byol pretrain') as a single HTML page, which needs no "
    "network\n"
    "and no other file: mail it, keep it. Also while they are running; nothing in them is "
    "changed.\n"
    "\n"
    "What is on it, as far as the runs have it:\n"
    "  curves      of all runs over one another: loss, nearest neighbours and RankMe on\n"
    "              the probe (pretrain --probe), online accuracy, learning rate, tau,\n"
    "              pairs/s, data wait, spread, and the positive and negative cosine\n"
    "              beside what is healthy; point at one to read it off\n"
    "  a table     of the last values; how each session ended; skipped records\n"
    "  a sheet     of what the network sees, when the dataset is where it was\n"
    "  neighbours  of some images at several checkpoints (pretrain with a higher\n"
    "              keep_checkpoints to see early ones)\n"
    "  settings    of the runs, those that differ first\n"
    "\n"
    "Options:\n"
    "  -o, --output FILE  the page; replaced when it is there\n"
    "  --data DATASET     look for neighbours here; without, in a run's own probe\n"
    "  --test DATASET     ... of images of this one; without, --data gives both\n"
    "  --images N         how many images to look for (6)\n"
    "  --bank N           images to look among, at most (2000)\n"
    "  --checkpoints N    columns: the first, the last, and between (3); 0 = no neighbours\n"
    "  --device NAME      that computes features (the run's; the cpu in place of a GPU)\n"
    "  --threads N        of it; 0 = one per core\n"
    "  --json             print the figures as JSON; the page may then be left out\n"
    "  --quiet            no progress line\n"
    "\n"
    "Examples:\n"
    "  byol report run -o report.html\n"
    "  byol report runs/* -o compare.html --data train --test test\n"
    "  byol report run --json\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

struct request {
    const char *output, *data, *test, *device;
    int64_t images, bank, checkpoints, threads;
    bool json, quiet;
};

static void show(void *context, const char *stage, uint64_t done, uint64_t total)
{
    progress_bar(context, stage, done, total, "images");
}

static enum status open_runs(struct report_run *runs, size_t *opened,
                             const struct option_list *operands, struct error *error)
{
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < operands->count; i++) {
        status = report_run_open(&runs[i], operands->item[i], error);
        *opened = i + 1;
    }
    report_run_name(runs, *opened);
    return status;
}

static enum status open_datasets(const struct request *request, struct dataset **data,
                                 struct dataset **test, struct error *error)
{
    enum status status = STATUS_OK;
    if (request->data != NULL) {
        status = dataset_open(data, request->data, error);
    }
    return status == STATUS_OK && request->test != NULL ? dataset_open(test, request->test, error)
                                                        : status;
}

static enum status write_page(const struct request *request, struct report_page *page, size_t *len,
                              struct error *error)
{
    char *html = NULL;
    enum status status = report_page_write(page, &html, len, error);
    if (status == STATUS_OK) {
        status = file_write_durably(request->output, html, *len, error);
    }
    free(html);
    return status;
}

static void print_result(const struct request *request, const struct report_page *page, size_t len)
{
    if (!request->json) {
        printf("%s: %zu run%s, %zu charts, %zu contact sheet%s, neighbours of %zu, %.1f MB\n",
               request->output, page->count, page->count == 1 ? "" : "s", page->charts,
               page->sheets, page->sheets == 1 ? "" : "s", page->neighbours, (double)len / 1e6);
        return;
    }
    json_t *object = report_summary(page);
    json_object_set_new(object, "report",
                        request->output ? json_text(request->output) : json_null());
    json_object_set_new(object, "bytes", json_integer((json_int_t)len));
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

static enum status report_runs(const struct request *request, struct report_page *page,
                               struct error *error)
{
    struct dataset *data = NULL, *test = NULL;
    struct progress progress;
    size_t len = 0;
    progress_begin(&progress, request->quiet);
    page->search = (struct report_search){.images = request->images,
                                          .bank = request->bank,
                                          .checkpoints = request->checkpoints,
                                          .device = request->device,
                                          .threads = (int)request->threads,
                                          .progress = show,
                                          .context = &progress};
    enum status status = open_datasets(request, &data, &test, error);
    page->data = data;
    page->test = test;
    if (status == STATUS_OK && request->output != NULL) {
        status = write_page(request, page, &len, error);
    }
    progress_end(&progress);
    if (status == STATUS_OK) {
        print_result(request, page, len);
    }
    dataset_close(&data);
    dataset_close(&test);
    return status;
}

static int report(const struct request *request, const struct option_list *operands)
{
    struct error error;
    struct report_run *runs = calloc(operands->count, sizeof *runs);
    struct report_page page = {.runs = runs};
    enum status status = runs ? open_runs(runs, &page.count, operands, &error)
                              : error_set(&error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                          "no memory for so many runs");
    if (status == STATUS_OK) {
        status = report_runs(request, &page, &error);
    }
    for (size_t i = 0; i < page.count; i++) {
        report_run_close(&runs[i]);
    }
    free(runs);
    return status == STATUS_OK ? EXIT_OK : command_failed(&command_report, &error, request->json);
}

static int check_request(const struct request *request, const struct option_list *operands)
{
    if (operands->count == 0) {
        return command_misused(&command_report, "wants the directories of one or more runs");
    }
    if (operands->count > MOST_RUNS) {
        return command_misused(&command_report, "shows %d runs at most, not %zu", MOST_RUNS,
                               operands->count);
    }
    if (request->output == NULL && !request->json) {
        return command_misused(&command_report, "wants -o REPORT.html, or --json");
    }
    if (request->test != NULL && request->data == NULL) {
        return command_misused(&command_report, "--test goes with --data, where neighbours are");
    }
    return EXIT_OK;
}

static int run(int argc, char **argv)
{
    struct request request = {.images = 6, .bank = 2000, .checkpoints = 3};
    const struct option options[] = {
        {"output", 'o', OPTION_STRING, &request.output, 0, 0},
        {"data", 0, OPTION_STRING, &request.data, 0, 0},
        {"test", 0, OPTION_STRING, &request.test, 0, 0},
        {"images", 0, OPTION_INT, &request.images, 1, REPORT_ASKED},
        {"bank", 0, OPTION_INT, &request.bank, 1, 1e7},
        {"checkpoints", 0, OPTION_INT, &request.checkpoints, 0, REPORT_CHECKPOINTS},
        {"device", 0, OPTION_STRING, &request.device, 0, 0},
        {"threads", 't', OPTION_INT, &request.threads, 0, 1024},
        {"json", 0, OPTION_FLAG, &request.json, 0, 0},
        {"quiet", 'q', OPTION_FLAG, &request.quiet, 0, 0},
    };
    struct option_list operands;
    bool done;
    int code = command_options(&command_report, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, &done);
    if (code == EXIT_OK && !done) {
        code = check_request(&request, &operands);
        if (code == EXIT_OK) {
            code = report(&request, &operands);
        }
    }
    return code;
}

const struct command command_report = {
    .name = "report",
    .summary = "curves of runs, one page",
    .help = help,
    .run = run,
};
