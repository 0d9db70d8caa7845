// Figures of an ablation, gathered from its runs, as text, CSV and JSON.
#include "tools/ablate_table.h"

#include "formats/file.h"
#include "tools/ablate_chart.h"
#include "tools/json_text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// --- gathering -----------------------------------------------------------------------------------

static void summarise(struct ablate_cell *cell, size_t seeds)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < seeds; i++) {
        if (isfinite(cell->values[i])) {
            sum += cell->values[i];
            cell->count++;
        }
    }
    cell->mean = cell->count > 0 ? sum / (double)cell->count : NAN;
    for (size_t i = 0; i < seeds; i++) {
        double distance = cell->values[i] - cell->mean;
        squares += isfinite(distance) ? distance * distance : 0;
    }
    cell->sd = cell->count > 1 ? sqrt(squares / (double)(cell->count - 1)) : NAN;
}

static enum status read_line(struct ablate_line *line, const struct ablate_plan *plan,
                             const char *output, struct error *error)
{
    enum status status = STATUS_OK;
    bool waits = line->row->waits_for[0] != '\0';
    for (size_t seed = 0; status == STATUS_OK && seed < plan->seed_count; seed++) {
        char directory[RUN_PATH];
        struct ablate_state state = {0};
        struct error mismatch = {.status = STATUS_OK};
        if (!waits) {
            status = ablate_run_path(output, line->row, plan->seeds[seed], directory, &mismatch);
        }
        if (status == STATUS_OK && !waits) {
            status =
                ablate_state_read(plan, line->row, plan->seeds[seed], directory, &state, &mismatch);
        }
        if (status == STATUS_CONFIG) { // not the run of this row any more: it does not count
            state = (struct ablate_state){0};
            snprintf(state.failure, sizeof state.failure, "%.299s", mismatch.reason);
            status = STATUS_OK;
        } else if (status != STATUS_OK) {
            *error = mismatch;
        }
        line->trained += state.trained;
        if (line->failure[0] == '\0') {
            memcpy(line->failure, state.failure, sizeof line->failure);
        }
        for (size_t i = 0; i < plan->measure_count; i++) {
            line->cells[i].values[seed] = state.measured[i].done ? state.measured[i].top1 : NAN;
        }
    }
    for (size_t i = 0; i < plan->measure_count; i++) {
        summarise(&line->cells[i], plan->seed_count);
    }
    return status;
}

enum status ablate_table_read(struct ablate_table *table, const struct ablate_plan *plan,
                              const char *output, struct error *error)
{
    *table = (struct ablate_table){plan, calloc(plan->row_count, sizeof *table->lines)};
    if (table->lines == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE, "no memory for a table");
    }
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < plan->row_count; i++) {
        struct ablate_line *line = &table->lines[i];
        line->row = &plan->rows[i];
        status = read_line(line, plan, output, error);
        line->paper_difference = line->row->paper - plan->rows[0].paper;
        for (size_t j = 0; j < plan->measure_count; j++) {
            line->cells[j].difference = line->cells[j].mean - table->lines[0].cells[j].mean;
        }
    }
    return status;
}

void ablate_table_free(struct ablate_table *table)
{
    free(table->lines);
    *table = (struct ablate_table){0};
}

static bool has_paper(const struct ablate_table *table)
{
    bool any = false;
    for (size_t i = 0; i < table->plan->row_count; i++) {
        any |= isfinite(table->plan->rows[i].paper);
    }
    return any;
}

// --- text ----------------------------------------------------------------------------------------

// "41.23 ±0.31  -2.10", in columns that do not depend on what is missing.
static void print_figure(FILE *stream, int width, double mean, double sd, double difference)
{
    char text[3][32] = {"-", "", ""};
    if (isfinite(mean)) {
        snprintf(text[0], sizeof text[0], "%.2f", mean);
    }
    if (isfinite(sd)) {
        snprintf(text[1], sizeof text[1], "%.2f", sd);
    }
    if (isfinite(difference)) {
        snprintf(text[2], sizeof text[2], "%+.2f", difference);
    }
    fprintf(stream, "  %*s %s%-5s %7s", width, text[0], text[1][0] ? "±" : " ", text[1], text[2]);
}

// Bytes that go on with a UTF-8 character take no column.
static int columns_of(const char *text)
{
    int columns = 0;
    for (; *text; text++) {
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return columns;
}

static void print_padded(FILE *stream, const char *text, int width)
{
    fprintf(stream, "%s%*s", text, width - columns_of(text), "");
}

static int name_width(const struct ablate_table *table)
{
    int width = 3;
    for (size_t i = 0; i < table->plan->row_count; i++) {
        int columns = columns_of(table->plan->rows[i].name);
        width = columns > width ? columns : width;
    }
    return width;
}

static int measure_width(const struct ablate_measure *measure)
{
    int width = (int)strlen(measure->name);
    return width > 6 ? width : 6;
}

static void print_state(FILE *stream, const struct ablate_table *table,
                        const struct ablate_line *line)
{
    size_t seeds = table->plan->seed_count, measured = seeds;
    for (size_t i = 0; i < table->plan->measure_count; i++) {
        measured = line->cells[i].count < measured ? line->cells[i].count : measured;
    }
    if (line->row->waits_for[0]) {
        fprintf(stream, "  waits for %s", line->row->waits_for);
    } else if (measured < seeds) {
        fprintf(stream, "  %zu of %zu seeds", measured, seeds);
        if (line->failure[0]) {
            fprintf(stream, ", failed: %s", line->failure);
        }
    }
}

static void print_text(FILE *stream, const struct ablate_table *table)
{
    const struct ablate_plan *plan = table->plan;
    int width = name_width(table);
    bool paper = has_paper(table);
    fprintf(stream, "%s%s%-*s", plan->title, plan->title[0] ? "\n" : "", width, "row");
    for (size_t i = 0; i < plan->measure_count; i++) {
        const struct ablate_measure *measure = &plan->measures[i];
        fprintf(stream, "  %*s ±sd    %7s", measure_width(measure), measure->name, "diff");
    }
    fprintf(stream, paper ? "  %6s ±sd    %7s\n" : "\n", "paper", "diff");
    for (size_t i = 0; i < plan->row_count; i++) {
        const struct ablate_line *line = &table->lines[i];
        print_padded(stream, line->row->name, width);
        for (size_t j = 0; j < plan->measure_count; j++) {
            const struct ablate_cell *cell = &line->cells[j];
            print_figure(stream, measure_width(&plan->measures[j]), cell->mean, cell->sd,
                         i > 0 ? cell->difference : NAN);
        }
        if (paper) {
            print_figure(stream, 6, line->row->paper, line->row->paper_sd,
                         i > 0 ? line->paper_difference : NAN);
        }
        print_state(stream, table, line);
        fputc('\n', stream);
    }
    fprintf(stream,
            "top-1 in percent, mean and standard deviation (of a sample: n - 1) over %zu seed%s, "
            "difference to the first row\n",
            plan->seed_count, plan->seed_count > 1 ? "s" : "");
    if (plan->paper_is[0]) {
        fprintf(stream, "paper: %s\n", plan->paper_is);
    }
}

typedef void (*printer)(FILE *stream, const struct ablate_table *table);

static char *print_with(printer print, const struct ablate_table *table)
{
    char *text = NULL;
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    if (stream == NULL) {
        return NULL;
    }
    print(stream, table);
    return fclose(stream) == 0 ? text : NULL;
}

char *ablate_table_text(const struct ablate_table *table)
{
    return print_with(print_text, table);
}

// --- CSV -----------------------------------------------------------------------------------------

static void print_quoted(FILE *stream, const char *text)
{
    fputc('"', stream);
    for (; *text; text++) {
        fprintf(stream, *text == '"' ? "\"\"" : "%c", *text);
    }
    fputc('"', stream);
}

static void print_value(FILE *stream, double value)
{
    fputc(',', stream);
    if (isfinite(value)) {
        fprintf(stream, "%.4f", value);
    }
}

static void print_csv(FILE *stream, const struct ablate_table *table)
{
    const struct ablate_plan *plan = table->plan;
    fputs("row", stream);
    for (size_t i = 0; i < plan->measure_count; i++) {
        const char *name = plan->measures[i].name;
        fprintf(stream, ",%s_seeds,%s_mean,%s_sd,%s_difference", name, name, name, name);
        for (size_t seed = 0; seed < plan->seed_count; seed++) {
            fprintf(stream, ",%s_seed_%lld", name, (long long)plan->seeds[seed]);
        }
    }
    fputs(",paper,paper_sd,paper_difference\r\n", stream);
    for (size_t i = 0; i < plan->row_count; i++) {
        const struct ablate_line *line = &table->lines[i];
        print_quoted(stream, line->row->name);
        for (size_t j = 0; j < plan->measure_count; j++) {
            const struct ablate_cell *cell = &line->cells[j];
            fprintf(stream, ",%zu", cell->count);
            print_value(stream, cell->mean);
            print_value(stream, cell->sd);
            print_value(stream, cell->difference);
            for (size_t seed = 0; seed < plan->seed_count; seed++) {
                print_value(stream, cell->values[seed]);
            }
        }
        print_value(stream, line->row->paper);
        print_value(stream, line->row->paper_sd);
        print_value(stream, line->paper_difference);
        fputs("\r\n", stream);
    }
}

// --- JSON ----------------------------------------------------------------------------------------

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *cell_json(const struct ablate_cell *cell, size_t seeds)
{
    json_t *values = json_array();
    for (size_t i = 0; i < seeds; i++) {
        json_array_append_new(values, number(cell->values[i]));
    }
    return json_pack("{s:i, s:o, s:o, s:o, s:o}", "seeds", (int)cell->count, "mean",
                     number(cell->mean), "sd", number(cell->sd), "difference",
                     number(cell->difference), "values", values);
}

static json_t *line_json(const struct ablate_plan *plan, const struct ablate_line *line)
{
    const struct ablate_row *row = line->row;
    json_t *measures = json_object(), *set = json_array();
    for (size_t i = 0; i < plan->measure_count; i++) {
        json_object_set_new(measures, plan->measures[i].name,
                            cell_json(&line->cells[i], plan->seed_count));
    }
    for (size_t i = 0; i < row->set.count; i++) {
        json_array_append_new(set, json_text(row->set.item[i].text));
    }
    return json_pack(
        "{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:i, s:o, s:o}", "row", json_text(row->name), "folder",
        row->slug, "set", set, "measures", measures, "paper", number(row->paper), "paper_sd",
        number(row->paper_sd), "paper_difference", number(line->paper_difference), "trained",
        (int)line->trained, "failure", line->failure[0] ? json_text(line->failure) : json_null(),
        "waits_for", row->waits_for[0] ? json_text(row->waits_for) : json_null());
}

char *ablate_table_json(const struct ablate_table *table)
{
    const struct ablate_plan *plan = table->plan;
    json_t *rows = json_array(), *seeds = json_array();
    for (size_t i = 0; i < plan->seed_count; i++) {
        json_array_append_new(seeds, json_integer(plan->seeds[i]));
    }
    for (size_t i = 0; i < plan->row_count; i++) {
        json_array_append_new(rows, line_json(plan, &table->lines[i]));
    }
    json_t *object = json_pack("{s:o, s:o, s:o, s:o, s:o}", "ablation", json_text(plan->path),
                               "title", json_text(plan->title), "paper",
                               plan->paper_is[0] ? json_text(plan->paper_is) : json_null(), "seeds",
                               seeds, "rows", rows);
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    return text;
}

// --- files ---------------------------------------------------------------------------------------

static enum status write_text(char *text, const char *output, const char *name, struct error *error)
{
    char path[RUN_PATH];
    enum status status = run_directory_path(output, name, path, error);
    if (status == STATUS_OK) {
        status =
            text ? file_write_durably(path, text, strlen(text), error)
                 : error_set(error, STATUS_NO_MEMORY, path, NOWHERE, NOWHERE, "no memory for it");
    }
    free(text);
    return status;
}

enum status ablate_table_write(const struct ablate_table *table, const char *output,
                               struct error *error)
{
    enum status status = write_text(ablate_table_text(table), output, "table.txt", error);
    if (status == STATUS_OK) {
        status = write_text(print_with(print_csv, table), output, "table.csv", error);
    }
    if (status == STATUS_OK) {
        status = write_text(ablate_table_json(table), output, "table.json", error);
    }
    return status == STATUS_OK ? ablate_chart_write(table, output, error) : status;
}
