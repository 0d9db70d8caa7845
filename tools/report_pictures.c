// Contact sheets and nearest neighbours.
#include "tools/report_pictures.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/canvas.h"
#include "tools/html.h"
#include "tools/sheet_render.h"
#include "trainer/probe/probe.h"
#include "trainer/run/directory.h"

enum {
    SHEET_IMAGES = 4,
    SHEET_PAIRS = 3,
    SHEET_QUALITY = 88,
    THUMB_SIDE = 56,
    THUMB_QUALITY = 85,
    NEIGHBOURS = 5,
    MOST_CHECKPOINTS = 4096, // of a directory, that are looked at
};
#define DRAW_SEED 0 // which images are asked for and searched

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for pictures");
}

// --- the contact sheet -----------------------------------------------------------------------

static enum status plan_row(struct sheet_row *row, const struct report_run *run,
                            const struct dataset *dataset, uint64_t record, struct error *error)
{
    const struct recipe *recipe = &run->config.recipe;
    size_t views = (size_t)recipe->views;
    const struct dataset_record stored = dataset_record(dataset, record);
    row->record = record;
    row->width = stored.width;
    row->height = stored.height;
    snprintf(row->name, sizeof row->name, "%s", dataset_record_name(dataset, record));
    row->views = calloc(SHEET_PAIRS * views, sizeof *row->views);
    if (row->views == NULL) {
        return no_memory(error);
    }
    row->count = SHEET_PAIRS * views;
    for (size_t i = 0; i < row->count; i++) {
        struct sheet_view *view = &row->views[i];
        view->epoch = (uint32_t)(i / views);
        view->view = (uint32_t)(i % views);
        const struct view_key key = {(uint64_t)run->config.seed, record, view->epoch, view->view};
        view_draw(recipe, key, row->width, row->height, &view->params);
    }
    return STATUS_OK;
}

static enum status fill_row(struct sheet_row *row, struct sheet_renderer *renderer,
                            const struct report_run *run, const struct dataset *dataset,
                            uint64_t record, struct error *error)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    enum status status = plan_row(row, run, dataset, record, error);
    if (status == STATUS_OK) {
        status = dataset_read(dataset, record, &bytes, &len, error);
    }
    if (status == STATUS_OK) {
        status = sheet_render_row(renderer, row, true, bytes, len, error);
    }
    free(bytes);
    return status;
}

static enum status fill_sheet(struct sheet *sheet, const struct report_run *run,
                              const struct dataset *dataset, struct error *error)
{
    uint64_t total = dataset_count(dataset), count = total < SHEET_IMAGES ? total : SHEET_IMAGES;
    struct sheet_renderer renderer = {0};
    sheet->size = (uint32_t)run->config.recipe.size;
    snprintf(sheet->title, sizeof sheet->title, "views of %u px", sheet->size);
    sheet->rows = calloc(count ? count : 1, sizeof *sheet->rows);
    if (sheet->rows == NULL) {
        return no_memory(error);
    }
    enum status status = sheet_renderer_open(&renderer, sheet->size, error);
    for (; status == STATUS_OK && sheet->count < count; sheet->count++) {
        struct sheet_row *row = &sheet->rows[sheet->count];
        status = fill_row(row, &renderer, run, dataset, sheet->count * total / count, error);
    }
    sheet_renderer_close(&renderer);
    return status;
}

enum status report_sheet(FILE *page, const struct report_run *run, const struct dataset *dataset,
                         struct error *error)
{
    struct sheet sheet = {0};
    struct image canvas = {0};
    char alt[256];
    enum status status = fill_sheet(&sheet, run, dataset, error);
    if (status == STATUS_OK) {
        status = sheet_draw(&sheet, &canvas, error);
    }
    if (status == STATUS_OK) {
        snprintf(alt, sizeof alt,
                 "%zu images of the dataset, each with its crop windows and with the views of its "
                 "first %d epochs; below each view what was drawn for it",
                 sheet.count, SHEET_PAIRS);
        status = html_picture(page, &canvas, SHEET_QUALITY, "sheet", alt, error);
    }
    image_free(&canvas);
    sheet_free(&sheet);
    return status;
}

// --- checkpoints -----------------------------------------------------------------------------

static int ascending(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

// Steps of the run's checkpoints, ascending.
static size_t list_checkpoints(const char *directory, uint64_t *steps)
{
    size_t count = 0;
    DIR *stream = opendir(directory);
    if (stream == NULL) {
        return 0;
    }
    for (const struct dirent *entry; (entry = readdir(stream)) && count < MOST_CHECKPOINTS;) {
        unsigned long long step;
        int end = 0;
        if (sscanf(entry->d_name, "checkpoint-%llu.safetensors%n", &step, &end) == 1 && end > 0 &&
            entry->d_name[end] == '\0') {
            steps[count++] = step;
        }
    }
    closedir(stream);
    qsort(steps, count, sizeof *steps, ascending);
    return count;
}

// The first, the last, and evenly between them.
static size_t choose_checkpoints(const char *directory, int64_t wanted, uint64_t *chosen)
{
    uint64_t *steps = calloc(MOST_CHECKPOINTS, sizeof *steps);
    if (steps == NULL) {
        return 0;
    }
    size_t count = list_checkpoints(directory, steps);
    size_t most = wanted < (int64_t)count ? (size_t)wanted : count;
    for (size_t i = 0; i < most; i++) {
        chosen[i] = steps[most < 2 ? count - 1 : i * (count - 1) / (most - 1)];
    }
    free(steps);
    return most;
}

// --- searching -------------------------------------------------------------------------------

struct found {
    uint64_t record;
    int32_t label;
    double cosine;
};

struct asked {
    uint64_t record;
    int32_t label;
    struct found found[REPORT_CHECKPOINTS][NEIGHBOURS];
};

struct table {
    const struct report_run *run;
    const struct report_search *search;
    uint64_t steps[REPORT_CHECKPOINTS];
    size_t columns, rows;
    size_t neighbours; // NEIGHBOURS, or fewer where the bank is small
    struct asked asked[REPORT_ASKED];
};

static double cosine(const float *left, const float *right, uint32_t width)
{
    double product = 0, a = 0, b = 0;
    for (uint32_t i = 0; i < width; i++) {
        product += (double)left[i] * (double)right[i];
        a += (double)left[i] * (double)left[i];
        b += (double)right[i] * (double)right[i];
    }
    return product / sqrt(fmax(a * b, 1e-24));
}

// Keeps the best so far in descending order.
static void offer(struct found *found, size_t count, struct found candidate)
{
    for (size_t i = 0; i < count; i++) {
        if (candidate.cosine > found[i].cosine) {
            struct found worse = found[i];
            found[i] = candidate;
            candidate = worse;
        }
    }
}

// Rows [first, count) of `bank` are searched for each of the first `rows` of `test`.
static void search_rows(struct table *table, size_t column, const struct features *test,
                        const struct features *bank, uint64_t first)
{
    for (size_t q = 0; q < table->rows; q++) {
        struct asked *asked = &table->asked[q];
        struct found *found = asked->found[column];
        asked->record = test->records[q];
        asked->label = test->labels[q];
        for (size_t i = 0; i < table->neighbours; i++) {
            found[i].cosine = -INFINITY;
        }
        for (uint64_t r = first; r < bank->count; r++) {
            const struct found candidate = {bank->records[r], bank->labels[r],
                                            cosine(test->values + q * test->width,
                                                   bank->values + r * bank->width, bank->width)};
            offer(found, table->neighbours, candidate);
        }
    }
}

static enum status embed_and_search(struct table *table, size_t column, struct encoder *encoder,
                                    struct error *error)
{
    const struct report_search *search = table->search;
    struct features bank = {0}, test = {0};
    struct probe_options options;
    probe_options_init(&options);
    options.threads = options.loader_threads = search->threads;
    options.progress = search->progress;
    options.context = search->context;
    uint64_t more = search->test ? 0 : table->rows; // those of the bank that are asked for
    enum status status = features_sample(&bank, 1, encoder, search->data,
                                         (uint64_t)search->bank + more, DRAW_SEED, &options, error);
    if (status == STATUS_OK && search->test) {
        status = features_sample(&test, 1, encoder, search->test, table->rows, DRAW_SEED, &options,
                                 error);
    }
    if (status == STATUS_OK) {
        search_rows(table, column, search->test ? &test : &bank, &bank, more);
    }
    features_free(&bank);
    features_free(&test);
    return status;
}

static enum status fill_column(struct table *table, size_t column, struct error *error)
{
    char path[RUN_PATH], name[64];
    struct encoder *encoder = NULL;
    const char *device = table->search->device;
    bool on_gpu = strcmp(table->run->config.device, "cuda") == 0;
    snprintf(name, sizeof name, "checkpoints/checkpoint-%012" PRIu64 ".safetensors",
             table->steps[column]);
    enum status status = run_directory_path(table->run->directory, name, path, error);
    if (status == STATUS_OK) {
        status = encoder_open(&encoder, path,
                              device   ? device
                              : on_gpu ? "cpu"
                                       : NULL,
                              table->search->threads, false, error);
    }
    if (status == STATUS_OK) {
        status = embed_and_search(table, column, encoder, error);
    }
    encoder_close(&encoder);
    return status;
}

// --- the table -------------------------------------------------------------------------------

static const char *class_of(const struct dataset *dataset, int32_t label)
{
    return label >= 0 ? dataset_class_name(dataset, (uint32_t)label) : "no label";
}

static enum status reduce(const struct image *whole, struct image *small, struct error *error)
{
    uint32_t longer = whole->width > whole->height ? whole->width : whole->height;
    double scale = (double)THUMB_SIDE / (double)longer;
    uint32_t width = (uint32_t)fmax(1, round(whole->width * scale));
    uint32_t height = (uint32_t)fmax(1, round(whole->height * scale));
    return canvas_resize(whole, small, width, height, error);
}

static enum status put_thumb(FILE *page, const struct dataset *dataset, uint64_t record,
                             const char *alt, struct error *error)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    struct image_decoder *decoder = NULL;
    struct image whole = {0}, small = {0};
    enum status status = dataset_read(dataset, record, &bytes, &len, error);
    if (status == STATUS_OK) {
        status = image_decoder_open(&decoder, error);
    }
    if (status == STATUS_OK) {
        status = image_decode(decoder, bytes, len, NULL, &whole, error);
    }
    if (status == STATUS_OK) {
        status = reduce(&whole, &small, error);
    }
    if (status == STATUS_OK) {
        status = html_picture(page, &small, THUMB_QUALITY, NULL, alt, error);
    }
    image_decoder_close(&decoder);
    image_free(&whole);
    image_free(&small);
    free(bytes);
    return status;
}

static enum status put_found(FILE *page, const struct table *table, const struct asked *asked,
                             const struct found *found, struct error *error)
{
    char alt[400];
    const char *class = class_of(table->search->data, found->label);
    bool labelled = found->label >= 0 && asked->label >= 0, same = found->label == asked->label;
    snprintf(alt, sizeof alt, "%s, cosine %.2f", class, found->cosine);
    fprintf(page, "<span class=\"thumb %s\" title=\"",
            !labelled ? "plain"
            : same    ? "same"
                      : "other");
    html_text(page, alt);
    fputs("\">", page);
    enum status status = put_thumb(page, table->search->data, found->record, alt, error);
    fprintf(page, "<i>%s%.2f</i></span>", !labelled ? "" : same ? "✓ " : "✗ ", found->cosine);
    return status;
}

static enum status put_row(FILE *page, const struct table *table, const struct asked *asked,
                           struct error *error)
{
    const struct dataset *test = table->search->test ? table->search->test : table->search->data;
    const char *class = class_of(test, asked->label);
    fputs("<tr><th scope=\"row\"><span class=\"thumb plain\">", page);
    enum status status = put_thumb(page, test, asked->record, class, error);
    fputs("<i>", page);
    html_text(page, class);
    fputs("</i></span></th>", page);
    for (size_t c = 0; status == STATUS_OK && c < table->columns; c++) {
        fputs("<td>", page);
        for (size_t i = 0; status == STATUS_OK && i < table->neighbours; i++) {
            status = put_found(page, table, asked, &asked->found[c][i], error);
        }
        fputs("</td>", page);
    }
    fputs("</tr>\n", page);
    return status;
}

static enum status put_table(FILE *page, const struct table *table, struct error *error)
{
    fputs("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"nearest neighbours\">"
          "<table class=\"neighbours\"><thead><tr><th scope=\"col\">image</th>",
          page);
    for (size_t c = 0; c < table->columns; c++) {
        fprintf(page, "<th scope=\"col\">step %" PRIu64, table->steps[c]);
        if (table->run->steps_per_epoch > 0) {
            fprintf(page, " (epoch %.3g)",
                    (double)table->steps[c] / (double)table->run->steps_per_epoch);
        }
        fputs("</th>", page);
    }
    fputs("</tr></thead><tbody>\n", page);
    enum status status = STATUS_OK;
    for (size_t q = 0; status == STATUS_OK && q < table->rows; q++) {
        status = put_row(page, table, &table->asked[q], error);
    }
    fputs("</tbody></table></div>\n", page);
    return status;
}

static enum status plan_table(struct table *table, struct error *error)
{
    const struct report_search *search = table->search;
    const struct dataset *test = search->test ? search->test : search->data;
    char checkpoints[RUN_PATH];
    enum status status =
        run_directory_path(table->run->directory, "checkpoints", checkpoints, error);
    if (status != STATUS_OK) {
        return status;
    }
    table->columns = choose_checkpoints(checkpoints, search->checkpoints, table->steps);
    uint64_t count = dataset_count(test), left = dataset_count(search->data);
    table->rows = count < (uint64_t)search->images ? (size_t)count : (size_t)search->images;
    if (search->test == NULL) {
        table->rows = table->rows > left / 2 ? (size_t)(left / 2) : table->rows;
        left -= table->rows;
    }
    left = left < (uint64_t)search->bank ? left : (uint64_t)search->bank;
    table->neighbours = left < NEIGHBOURS ? (size_t)left : NEIGHBOURS;
    if (table->columns == 0) {
        return error_set(error, STATUS_NOT_FOUND, checkpoints, NOWHERE, NOWHERE,
                         "there is no checkpoint");
    }
    return table->rows > 0 && table->neighbours > 0
               ? STATUS_OK
               : error_set(error, STATUS_INVALID, dataset_directory(search->data), NOWHERE, NOWHERE,
                           "has too few images to look for neighbours");
}

enum status report_neighbours(FILE *page, const struct report_run *run,
                              const struct report_search *search, struct error *error)
{
    struct table *table = calloc(1, sizeof *table);
    if (table == NULL) {
        return no_memory(error);
    }
    table->run = run;
    table->search = search;
    enum status status = plan_table(table, error);
    for (size_t c = 0; status == STATUS_OK && c < table->columns; c++) {
        status = fill_column(table, c, error);
    }
    if (status == STATUS_OK) {
        status = put_table(page, table, error);
    }
    free(table);
    return status;
}
