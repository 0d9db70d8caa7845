// A contact sheet: a row for each picture, the original with its crop windows first, then its
// views in pairs, each with the parameters it was rendered from.
#ifndef TOOLS_SHEET_H
#define TOOLS_SHEET_H

#include "augment/view.h"

struct sheet_view {
    uint32_t epoch, view; // views of one epoch stand together
    struct view_params params;
    float *pixels; // [size][size][3], owned
};

struct sheet_row {
    uint64_t record;
    char name[256];         // of the record or file, as far as it fits
    char label[128];        // of the variant that is compared, "" = none
    uint32_t width, height; // of the original
    struct image original;  // reduced by sheet_reduce, owned
    struct sheet_view *views;
    size_t count; // views
};

struct sheet {
    char title[256];
    char notes[3][256]; // lines below the title, from notes[0]; "" = none
    uint32_t size;      // of every view
    struct sheet_row *rows;
    size_t count; // rows
};

// Fits an original into the room it has on a sheet of views of this size.
enum status sheet_reduce(const struct image *original, uint32_t size, struct image *out,
                         struct error *error);

// Draws the sheet. STATUS_LIMIT when it would be larger than an image may be.
enum status sheet_draw(const struct sheet *sheet, struct image *out, struct error *error);

void sheet_free(struct sheet *sheet);

#endif
