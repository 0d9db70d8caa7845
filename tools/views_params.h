// Parameter files of `byol views`: which views of which pictures, and how each was drawn.
//
//   {"recipe": "byol", "seed": 0, "inputs": ["train"],
//    "records": [{"record": 0, "name": "n01440764_18.jpg", "width": 500, "height": 375,
//                 "views": [{"epoch": 0, "view": 0, "params": {…}}, …]}, …]}
//
// A record of a comparison has its `variant` ("views.view1.blur = 0.5") too, and stands once for
// each. `params` is what augment/view.h writes. With the pictures, the file gives the same pixels.
#ifndef TOOLS_VIEWS_PARAMS_H
#define TOOLS_VIEWS_PARAMS_H

#include "tools/sheet.h"

struct views_params {
    char recipe[256]; // its name or file
    uint64_t seed;
    char **inputs; // as given on the command line, owned
    size_t input_count;
};

// `*json` is malloc'ed.
enum status views_params_write(const struct views_params *params, const struct sheet *sheet,
                               char **json, struct error *error);

// Fills `sheet` with rows that lack their pixels (to be freed also after a failure). Every view has
// the same size.
enum status views_params_read(const char *path, struct views_params *params, struct sheet *sheet,
                              struct error *error);
void views_params_free(struct views_params *params);

#endif
