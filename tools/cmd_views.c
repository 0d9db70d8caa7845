// `byol views`: shows what a recipe makes of images.
//
// First the rows of the sheet are planned (which record, which views, all parameters), either by
// drawing or from a parameter file; then every view is rendered from its parameters alone. So a
// replay takes the same path as a first showing.
#include "formats/file.h"
#include "formats/npy.h"
#include "tools/command.h"
#include "tools/json_text.h"
#include "tools/recipe_option.h"
#include "tools/sheet_render.h"
#include "tools/views_compare.h"
#include "tools/views_input.h"
#include "tools/views_params.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_COUNT 8
#define DEFAULT_PAIRS 3
#define NOT_GIVEN     (-1)

static const char help[] =
    "Usage: byol views DATASET -o SHEET.png [options]\n"
    "       byol views IMAGE... -o SHEET.png [options]\n"
    "       byol views --replay PARAMS.json -o SHEET.png [--raw OUT.npy]\n"
    "\n"
    "Draws a contact sheet: each row shows an image with the crop windows of its first pair, then\n"
    "the views that training would see in successive epochs, with what was drawn for each:\n"
    "window, flip, the colour operations in the order applied (B brightness, C contrast,\n"
    "S saturation, H hue), gray, blur and its sigma, solarize.\n"
    "\n"
    "Output, at least one of:\n"
    "  -o, --output FILE  the sheet as PNG\n"
    "  --params           print all drawn parameters as JSON\n"
    "  --raw FILE         the views as float32 .npy [images][views of an image][S][S][3] in 0..1\n"
    "\n"
    "What is shown:\n"
    "  --recipe NAME|FILE  byol, linear-train, eval, small, or a YAML file (byol)\n"
    "  --size N           another size of the views in pixels\n"
    "  --count N          images, spread evenly over a dataset (8); for files: all\n"
    "  --pairs N          epochs shown, one pair each (3)\n"
    "  --seed N           as the training's seed (0)\n"
    "  --epoch N          first epoch shown (0)\n"
    "  --compare KEY=A,B  a row for each value of a recipe's key (views.*.blur: of every view), "
    "or\n"
    "  --compare FILE     a row for each row of an ablation's file (see 'byol ablate'): what each\n"
    "                     does to the same image with the same draws. With --json the drawn\n"
    "                     parameters are printed\n"
    "  --replay FILE      take all of this from a file that --params printed; bit for bit the\n"
    "                     same views. Without inputs, those named in it are used\n"
    "  --json             print a summary, and failures, as JSON\n"
    "\n"
    "Examples:\n"
    "  byol views train -o sheet.png\n"
    "  byol views cat.jpg dog.jpg -o sheet.png --recipe small --params > drawn.json\n"
    "  byol views cat.jpg --compare views.*.jitter=0,0.8,1 -o sheet.png --pairs 4\n"
    "  byol views --replay drawn.json --raw views.npy\n"
    "\n"
    "Exit codes: 0 success, 1 failure, 2 wrong usage.\n";

struct views {
    // Options.
    const char *output, *recipe_name, *replay, *raw, *compare;
    int64_t size, count, pairs, seed, epoch;
    bool params, json;

    struct recipe recipe;
    struct views_variant *variants; // of `recipe`, when comparing: each image has a row for each
    size_t variant_count;
    struct views_params drawn;
    struct views_input input;
    struct sheet sheet;
    struct sheet_renderer renderer;
};

// --- recipe --------------------------------------------------------------------------------------

static enum status resolve_recipe(struct views *views, struct error *error)
{
    const char *name = views->recipe_name ? views->recipe_name : "byol";
    bool rows = views->compare && !views_compare_is_key(views->compare);
    snprintf(views->drawn.recipe, sizeof views->drawn.recipe, "%s", rows ? views->compare : name);
    views->drawn.seed = (uint64_t)views->seed;
    enum status status = recipe_option_load(name, &views->recipe, error);
    if (status == STATUS_OK && views->size != NOT_GIVEN) {
        views->recipe.size = views->size;
    }
    if (status == STATUS_OK) {
        status = recipe_validate(&views->recipe, error);
    }
    if (status == STATUS_OK && views->compare) {
        status = views_compare_open(views->compare, &views->recipe, &views->variants,
                                    &views->variant_count, error);
    }
    if (status == STATUS_OK && views->compare) {
        views->recipe = views->variants[0].recipe; // their common size and number
    }
    return status;
}

// --- planning ------------------------------------------------------------------------------------

static enum status no_memory(struct error *error)
{
    return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                     "no memory for so many views: show fewer images or pairs");
}

static size_t rows_per_image(const struct views *views)
{
    return views->compare ? views->variant_count : 1;
}

static enum status plan_row(struct views *views, struct sheet_row *row, uint64_t record,
                            struct error *error)
{
    size_t which = (size_t)(row - views->sheet.rows) % rows_per_image(views);
    if (views->compare) {
        snprintf(row->label, sizeof row->label, "%s", views->variants[which].label);
    }
    size_t per_epoch = (size_t)views->recipe.views, count = (size_t)views->pairs * per_epoch;
    row->record = record;
    snprintf(row->name, sizeof row->name, "%s", views_input_name(&views->input, record));
    row->views = calloc(count, sizeof *row->views);
    if (row->views == NULL) {
        return no_memory(error);
    }
    row->count = count;
    for (size_t i = 0; i < count; i++) {
        row->views[i].epoch = (uint32_t)((uint64_t)views->epoch + i / per_epoch);
        row->views[i].view = (uint32_t)(i % per_epoch);
    }
    return STATUS_OK;
}

// Rows for records spread over all of the input; their parameters follow when sizes are known.
static enum status plan_rows(struct views *views, struct error *error)
{
    uint64_t total = views_input_count(&views->input), count = (uint64_t)views->count;
    if (views->count == NOT_GIVEN) {
        count = views->input.dataset ? DEFAULT_COUNT : total;
    }
    count = count < total ? count : total;
    size_t per_image = rows_per_image(views), rows = (size_t)count * per_image;
    views->sheet.rows = calloc(rows ? rows : 1, sizeof *views->sheet.rows);
    if (views->sheet.rows == NULL) {
        return no_memory(error);
    }
    for (; views->sheet.count < rows; views->sheet.count++) {
        uint64_t record = views->sheet.count / per_image * total / count;
        struct sheet_row *row = &views->sheet.rows[views->sheet.count];
        enum status status = plan_row(views, row, record, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    views->sheet.size = (uint32_t)views->recipe.size;
    return STATUS_OK;
}

static enum status plan(struct views *views, const struct option_list *operands,
                        struct error *error)
{
    enum status status = STATUS_OK;
    if (views->replay) {
        status = views_params_read(views->replay, &views->drawn, &views->sheet, error);
    } else {
        status = resolve_recipe(views, error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    const char *const *paths = operands->item;
    size_t count = operands->count;
    if (count == 0) {
        paths = (const char *const *)views->drawn.inputs;
        count = views->drawn.input_count;
    }
    status = views_input_open(&views->input, paths, count, error);
    return status == STATUS_OK && !views->replay ? plan_rows(views, error) : status;
}

// --- rendering -----------------------------------------------------------------------------------

static enum status draw_row(const struct views *views, struct sheet_row *row,
                            const struct image_info *info, struct error *error)
{
    if (views->replay && (row->width != info->width || row->height != info->height)) {
        return error_set(error, STATUS_INVALID, views->replay, NOWHERE, row->record,
                         "the image has %u x %u pixels, the parameters are for %u x %u",
                         info->width, info->height, row->width, row->height);
    }
    row->width = info->width;
    row->height = info->height;
    size_t which = (size_t)(row - views->sheet.rows) % rows_per_image(views);
    const struct recipe *recipe = views->compare ? &views->variants[which].recipe : &views->recipe;
    for (size_t i = 0; !views->replay && i < row->count; i++) {
        struct sheet_view *view = &row->views[i];
        struct view_key key = {(uint64_t)views->seed, row->record, view->epoch, view->view};
        view_draw(recipe, key, info->width, info->height, &view->params);
    }
    return STATUS_OK;
}

static enum status render_bytes(struct views *views, struct sheet_row *row, const uint8_t *bytes,
                                size_t len, struct error *error)
{
    struct image_info info;
    enum status status = image_probe(views->renderer.decoder, bytes, len, &info, error);
    if (status == STATUS_OK) {
        status = draw_row(views, row, &info, error);
    }
    return status == STATUS_OK
               ? sheet_render_row(&views->renderer, row, views->output != NULL, bytes, len, error)
               : status;
}

static enum status render_row(struct views *views, struct sheet_row *row, struct error *error)
{
    if (row->record >= views_input_count(&views->input)) {
        return error_set(error, STATUS_NOT_FOUND, views->replay, NOWHERE, row->record,
                         "the inputs have only %" PRIu64 " images",
                         views_input_count(&views->input));
    }
    uint8_t *bytes = NULL;
    size_t len = 0;
    enum status status = views_input_read(&views->input, row->record, &bytes, &len, error);
    if (status == STATUS_OK) {
        status = render_bytes(views, row, bytes, len, error);
        if (status != STATUS_OK && error->path[0] == '\0') { // decoding does not know the file
            snprintf(error->path, sizeof error->path, "%s", row->name);
            error->record = views->input.dataset ? row->record : NOWHERE;
        }
    }
    free(bytes);
    return status;
}

static enum status render(struct views *views, struct error *error)
{
    enum status status = sheet_renderer_open(&views->renderer, views->sheet.size, error);
    for (size_t i = 0; status == STATUS_OK && i < views->sheet.count; i++) {
        status = render_row(views, &views->sheet.rows[i], error);
    }
    return status;
}

// --- output --------------------------------------------------------------------------------------

static void describe_view(const struct recipe *recipe, int which, char *text, size_t capacity)
{
    static const char *const crops[] = {"random crop", "centre crop", "whole image"};
    const struct recipe_view *view = &recipe->view[which];
    snprintf(text, capacity, "view %d: %s, flip %g, jitter %g, gray %g, blur %g, solarize %g",
             which + 1, crops[view->crop], view->flip, view->jitter, view->grayscale, view->blur,
             view->solarize);
}

static void describe_sheet(struct views *views)
{
    struct sheet *sheet = &views->sheet;
    const char *slash = strrchr(views->drawn.recipe, '/');
    snprintf(sheet->title, sizeof sheet->title, "%.64s: views of %u px",
             slash ? slash + 1 : views->drawn.recipe, sheet->size);
    if (views->replay) {
        snprintf(sheet->notes[0], sizeof sheet->notes[0], "replayed from %s", views->replay);
        return;
    }
    if (views->compare) {
        snprintf(sheet->notes[0], sizeof sheet->notes[0],
                 "the same draws of seed %" PRId64 " in every row of an image; compared: %.150s",
                 views->seed, views->compare);
        return;
    }
    size_t len = 0;
    for (int i = 0; i < (int)views->recipe.views; i++) {
        describe_view(&views->recipe, i, sheet->notes[i], sizeof sheet->notes[i]);
        len++;
    }
    snprintf(sheet->notes[len], sizeof sheet->notes[len],
             "seed %" PRId64 "; under each view: window, flip, colours in the order applied "
             "(B brightness, C contrast, S saturation, H hue), gray, blur, solarize",
             views->seed);
}

static enum status write_sheet(struct views *views, struct error *error)
{
    struct image canvas = {0};
    uint8_t *bytes = NULL;
    size_t len = 0;
    describe_sheet(views);
    enum status status = sheet_draw(&views->sheet, &canvas, error);
    if (status == STATUS_OK) {
        status = image_encode_png(&canvas, &bytes, &len, error);
    }
    if (status == STATUS_OK) {
        status = file_write_durably(views->output, bytes, len, error);
    }
    free(bytes);
    image_free(&canvas);
    return status;
}

static enum status write_raw(const struct views *views, struct error *error)
{
    const struct sheet *sheet = &views->sheet;
    size_t per_row = sheet->rows[0].count, size = sheet->size, values = size * size * 3;
    float *all = malloc(sheet->count * per_row * values * sizeof *all);
    if (all == NULL) {
        return no_memory(error);
    }
    struct npy array = {.type = NPY_FLOAT32,
                        .dims = 5,
                        .shape = {sheet->count, per_row, size, size, 3},
                        .count = sheet->count * per_row * values,
                        .data = all};
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < sheet->count; i++) {
        const struct sheet_row *row = &sheet->rows[i];
        if (row->count != per_row) {
            status = error_set(error, STATUS_INVALID, views->replay, NOWHERE, NOWHERE,
                               "--raw needs the same number of views for every record");
        }
        for (size_t j = 0; status == STATUS_OK && j < per_row; j++) {
            memcpy(all + (i * per_row + j) * values, row->views[j].pixels, values * sizeof *all);
        }
    }
    if (status == STATUS_OK) {
        status = npy_write(views->raw, &array, error);
    }
    free(all);
    return status;
}

// The inputs stay as they were given, so that a replay finds them from the same place.
static enum status print_params(struct views *views, const struct option_list *operands,
                                struct error *error)
{
    struct views_params shown = views->drawn;
    if (operands->count > 0) {
        shown.inputs = (char **)operands->item; // only read
        shown.input_count = operands->count;
    }
    char *json;
    enum status status = views_params_write(&shown, &views->sheet, &json, error);
    if (status == STATUS_OK) {
        puts(json);
        free(json);
    }
    return status;
}

static json_t *file_name(const char *path)
{
    return path ? json_text(path) : json_null();
}

static void print_summary(const struct views *views)
{
    const struct sheet *sheet = &views->sheet;
    size_t count = 0, images = sheet->count / rows_per_image(views);
    for (size_t i = 0; i < sheet->count; i++) {
        count += sheet->rows[i].count;
    }
    if (views->json) {
        json_t *result = json_pack("{s:o, s:o, s:I, s:I, s:i}", "output", file_name(views->output),
                                   "raw", file_name(views->raw), "images", (json_int_t)images,
                                   "views", (json_int_t)count, "size", (int)sheet->size);
        json_dumpf(result, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(result);
    } else {
        printf("%zu views of %zu image%s at %u px%s%s%s%s\n", count, images, images == 1 ? "" : "s",
               sheet->size, views->output ? ", sheet: " : "", views->output ? views->output : "",
               views->raw ? ", raw: " : "", views->raw ? views->raw : "");
    }
}

static enum status show(struct views *views, const struct option_list *operands,
                        struct error *error)
{
    enum status status = plan(views, operands, error);
    if (status == STATUS_OK && views->sheet.count == 0) {
        status = error_set(error, STATUS_INVALID, NULL, NOWHERE, NOWHERE, "there are no images");
    }
    if (status == STATUS_OK) {
        status = render(views, error);
    }
    if (status == STATUS_OK && views->output) {
        status = write_sheet(views, error);
    }
    if (status == STATUS_OK && views->raw) {
        status = write_raw(views, error);
    }
    if (status == STATUS_OK && (views->params || (views->compare && views->json))) {
        status = print_params(views, operands, error);
    } else if (status == STATUS_OK) {
        print_summary(views);
    }
    return status;
}

// --- command -------------------------------------------------------------------------------------

static int misused(const struct views *views, const struct option_list *operands)
{
    if (!views->output && !views->raw && !views->params && !(views->compare && views->json)) {
        return command_misused(&command_views, "nothing to write: give -o, --raw or --params");
    }
    if (operands->count == 0 && !views->replay) {
        return command_misused(&command_views, "which images? Give a dataset or image files");
    }
    if (views->compare && (views->recipe_name || views->size != NOT_GIVEN) &&
        !views_compare_is_key(views->compare)) {
        return command_misused(&command_views,
                               "--compare FILE brings its recipe: no --recipe or --size");
    }
    bool drawing = views->recipe_name || views->compare || views->size != NOT_GIVEN ||
                   views->count != NOT_GIVEN || views->pairs != NOT_GIVEN ||
                   views->seed != NOT_GIVEN || views->epoch != NOT_GIVEN;
    if (views->replay && drawing) {
        return command_misused(&command_views,
                               "--replay takes recipe, size, count, pairs, seed and epoch from "
                               "its file");
    }
    return EXIT_OK;
}

static int run(int argc, char **argv)
{
    struct views views = {.size = NOT_GIVEN,
                          .count = NOT_GIVEN,
                          .pairs = NOT_GIVEN,
                          .seed = NOT_GIVEN,
                          .epoch = NOT_GIVEN};
    const struct option options[] = {
        {"output", 'o', OPTION_STRING, &views.output, 0, 0},
        {"recipe", 0, OPTION_STRING, &views.recipe_name, 0, 0},
        {"size", 0, OPTION_INT, &views.size, RECIPE_MIN_SIZE, RECIPE_MAX_SIZE},
        {"count", 0, OPTION_INT, &views.count, 1, 10000},
        {"pairs", 0, OPTION_INT, &views.pairs, 1, 1000},
        {"seed", 0, OPTION_INT, &views.seed, 0, 9007199254740992.0},
        {"epoch", 0, OPTION_INT, &views.epoch, 0, 4294966000.0},
        {"params", 0, OPTION_FLAG, &views.params, 0, 0},
        {"compare", 0, OPTION_STRING, &views.compare, 0, 0},
        {"replay", 0, OPTION_STRING, &views.replay, 0, 0},
        {"raw", 0, OPTION_STRING, &views.raw, 0, 0},
        {"json", 0, OPTION_FLAG, &views.json, 0, 0},
    };
    struct option_list operands = {.count = 0};
    bool done = false;
    int code = command_options(&command_views, argc, argv, options,
                               sizeof options / sizeof options[0], &operands, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    code = misused(&views, &operands);
    if (code != EXIT_OK) {
        return code;
    }
    views.pairs = views.pairs == NOT_GIVEN ? DEFAULT_PAIRS : views.pairs;
    views.seed = views.seed == NOT_GIVEN ? 0 : views.seed;
    views.epoch = views.epoch == NOT_GIVEN ? 0 : views.epoch;
    struct error error = {.offset = NOWHERE, .record = NOWHERE};
    if (show(&views, &operands, &error) != STATUS_OK) {
        code = command_failed(&command_views, &error, views.json);
    }
    sheet_renderer_close(&views.renderer);
    sheet_free(&views.sheet);
    free(views.variants);
    views_input_close(&views.input);
    views_params_free(&views.drawn);
    return code;
}

const struct command command_views = {
    .name = "views",
    .summary = "see what training sees",
    .help = help,
    .run = run,
};
