// The page's pictures: contact sheets and neighbours, or why there are none.
#include "tools/report_sections.h"

#include <stdlib.h>
#include <string.h>

#include "tools/html.h"

// What goes to a page of its own first: nothing half of it when making it fails.
struct piece {
    FILE *out;
    char *text;
    size_t len;
};

static enum status piece_open(struct piece *piece, struct error *error)
{
    *piece = (struct piece){0};
    piece->out = open_memstream(&piece->text, &piece->len);
    return piece->out ? STATUS_OK
                      : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                                  "no memory for the page");
}

static void piece_close(struct piece *piece, FILE *out, enum status status,
                        const struct error *error)
{
    char text[1200];
    if (piece->out != NULL && fclose(piece->out) == 0 && status == STATUS_OK) {
        fwrite(piece->text, 1, piece->len, out);
    } else {
        fputs("<p class=\"bad\">", out);
        html_text(out, error_text(error, text, sizeof text));
        fputs("</p>\n", out);
    }
    free(piece->text);
}

static bool same_recipe(const struct report_run *left, const struct report_run *right)
{
    for (size_t i = 0; i < left->setting_count; i++) {
        const char *key = left->settings[i].key, *other = report_setting_of(right, key);
        if (strncmp(key, "views.", 6) == 0 &&
            (other == NULL || strcmp(left->settings[i].value, other) != 0)) {
            return false;
        }
    }
    return true;
}

// But for the seed, which one sheet stands for.
static bool same_views(const struct report_run *left, const struct report_run *right)
{
    const json_t *a = json_object_get(json_object_get(left->end, "dataset"), "id");
    const json_t *b = json_object_get(json_object_get(right->end, "dataset"), "id");
    return left->has_config && right->has_config && a != NULL && json_equal(a, b) &&
           same_recipe(left, right);
}

static bool was_shown(const struct report_page *page, size_t number)
{
    for (size_t i = 0; i < number; i++) {
        if (same_views(&page->runs[i], &page->runs[number])) {
            return true;
        }
    }
    return false;
}

// Names all runs whose views are these.
static void put_sheet_names(FILE *out, const struct report_page *page, size_t number)
{
    fputs("<h3>", out);
    report_put_run(out, &page->runs[number], number);
    for (size_t i = number + 1; i < page->count; i++) {
        if (same_views(&page->runs[number], &page->runs[i])) {
            fputs(", ", out);
            report_put_run(out, &page->runs[i], i);
        }
    }
    html_format(out, ": recipe %s", page->runs[number].config.recipe.name);
    fputs("</h3>\n", out);
}

static void put_sheet(FILE *out, struct report_page *page, size_t number,
                      const struct dataset *dataset)
{
    struct piece piece;
    struct error error;
    enum status status = piece_open(&piece, &error);
    if (status == STATUS_OK) {
        fputs("<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"contact sheet\">",
              piece.out);
        status = report_sheet(piece.out, &page->runs[number], dataset, &error);
        fputs("</div>\n", piece.out);
    }
    page->sheets += status == STATUS_OK;
    put_sheet_names(out, page, number);
    piece_close(&piece, out, status, &error);
}

void report_put_sheets(FILE *out, struct report_page *page)
{
    fputs("<h2>What the network sees</h2>\n", out);
    for (size_t i = 0; i < page->count; i++) {
        if (!page->runs[i].has_config || was_shown(page, i)) {
            continue;
        }
        struct dataset *own = report_dataset(&page->runs[i]);
        if (own != NULL || page->data != NULL) {
            put_sheet(out, page, i, own ? own : page->data);
        } else {
            fputs("<p class=\"pale\">", out);
            html_format(out,
                        "%s: its dataset is not at hand (--data DATASET shows another's views)",
                        page->runs[i].name);
            fputs("</p>\n", out);
        }
        dataset_close(&own);
    }
}

// The run's own probe, where it is at hand. Both are NULL when it is not.
static void open_probe(const struct report_run *run, struct dataset **data, struct dataset **test)
{
    *data = *test = NULL;
    if (!run->has_config || run->config.probe[0] == '\0' ||
        dataset_open(data, run->config.probe, NULL) != STATUS_OK) {
        return;
    }
    if (run->config.probe_test[0] &&
        dataset_open(test, run->config.probe_test, NULL) != STATUS_OK) {
        dataset_close(data);
    }
}

static void put_neighbours_of(FILE *out, struct report_page *page, size_t number)
{
    const struct report_run *run = &page->runs[number];
    struct report_search search = page->search;
    struct dataset *data = NULL, *test = NULL;
    struct piece piece;
    struct error error;
    if (page->data == NULL) {
        open_probe(run, &data, &test);
    }
    search.data = page->data ? page->data : data;
    search.test = page->data ? page->test : test;
    if (search.data != NULL && run->has_config && search.checkpoints > 0) {
        enum status status = piece_open(&piece, &error);
        if (status == STATUS_OK) {
            status = report_neighbours(piece.out, run, &search, &error);
        }
        page->neighbours += status == STATUS_OK;
        fputs("<h3>", out);
        report_put_run(out, run, number);
        fputs("</h3>\n", out);
        piece_close(&piece, out, status, &error);
    }
    dataset_close(&data);
    dataset_close(&test);
}

void report_put_neighbours(FILE *out, struct report_page *page)
{
    struct piece piece;
    struct error error;
    if (piece_open(&piece, &error) != STATUS_OK) {
        piece_close(&piece, out, STATUS_NO_MEMORY, &error);
        return;
    }
    for (size_t i = 0; i < page->count; i++) {
        put_neighbours_of(piece.out, page, i);
    }
    fflush(piece.out);
    fputs("<h2>Nearest neighbours</h2>\n", out);
    fputs(piece.len == 0
              ? "<p class=\"pale\">Not shown: --data DATASET (and --test) says where to look, or a "
                "run's own probe.</p>\n"
              : "<p class=\"pale\">Images that a checkpoint's features find most alike, with their "
                "cosine. ✓ is the same class, ✗ another one.</p>\n",
          out);
    piece_close(&piece, out, STATUS_OK, &error);
}
