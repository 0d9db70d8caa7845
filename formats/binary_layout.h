// What the binary files of CIFAR-10, CIFAR-100 and STL-10 look like: records of raw pixels without
// any header.
//
//     CIFAR-10    data_batch_1.bin … test_batch.bin      label, then 32 x 32 pixels: 3,073 bytes
//     CIFAR-100   train.bin test.bin                     coarse label, fine label, pixels: 3,074
//     STL-10      train_X.bin test_X.bin unlabeled_X.bin 96 x 96 pixels: 27,648 bytes; labels from
//                 train_y.bin test_y.bin                 1, a byte each, beside them
//
// Pixels are a plane of red, one of green, one of blue; CIFAR's row by row, STL-10's column by
// column (https://www.cs.toronto.edu/~kriz/cifar.html, https://cs.stanford.edu/~acoates/stl10). The
// names of the classes are in batches.meta.txt, fine_label_names.txt and class_names.txt beside
// them. CIFAR-100's fine labels are taken.
#ifndef FORMATS_BINARY_LAYOUT_H
#define FORMATS_BINARY_LAYOUT_H

#include "formats/source_content.h"

#define BINARY_RECORD_MAX 27648u // bytes
#define BINARY_HEADER_MAX 2u

struct binary_layout {
    const char *name;
    uint32_t record, header; // bytes
    uint32_t label_at;       // in the header
    uint32_t classes, side;
    enum source_pixels pixels;
    const char *class_names; // the file that has them
};

// A file of images, known by its name.
struct binary_file {
    const char *start, *end; // of the name
    const struct binary_layout *layout;
    const char *labels; // the file beside it that has them, or NULL
};

const char *binary_base(const char *name);                     // behind the last slash
const struct binary_file *binary_file_named(const char *name); // NULL: none of them
// A whole number of records, and at least one.
bool binary_fits(const struct binary_layout *layout, uint64_t size);

// There is no mark to know them by. CIFAR is known by its size and by labels that are all in range,
// under any name when there are enough of them, else under its own; STL-10 by its size and name.
const struct binary_layout *binary_layout_of(const char *path); // NULL: not such a file
// A folder with such a file. An archive with one among its first files.
bool binary_in_folder(const char *path);
enum status binary_in_tar(const char *path, bool *found, struct error *error);

// CIFAR's other form, of which nothing is read: files of the Python version, and their folder.
bool binary_is_pickle(const char *name);
bool binary_has_pickles(const char *path);

#endif
